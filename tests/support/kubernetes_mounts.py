"""Updates of a mounted secret as Kubernetes makes them."""

from __future__ import annotations

from pathlib import Path


def update_mounted_secret(mount: Path, version: str, **files: str) -> None:
    """Update a mounted secret: create a new directory and point ``..data`` to it in one step.

    Args:
        mount: where the secret is mounted; created if it does not exist.
        version: the new directory's name; Kubernetes calls it ``..2026_11_22_…``.
        files: the new contents by name; a dot in a name is written as ``__``.
    """
    contents = {name.replace("__", "."): text for name, text in files.items()}
    mount.mkdir(exist_ok=True)
    (mount / version).mkdir()
    for name, text in contents.items():
        (mount / version / name).write_text(text)
    (mount / "..data_tmp").symlink_to(version)
    (mount / "..data_tmp").rename(mount / "..data")
    for name in contents:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")
    for link in [path for path in mount.iterdir() if path.is_symlink() and not path.exists()]:
        link.unlink()
