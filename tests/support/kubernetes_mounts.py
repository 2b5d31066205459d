"""Directories that change as Kubernetes changes a mounted secret."""

from __future__ import annotations

from pathlib import Path


def as_kubernetes_does(mount: Path, version: str, **files: str) -> None:
    """Change a mounted secret: a new directory, and ``..data`` turned to it in one step.

    Args:
        mount: where the secret is mounted; made where it is not there.
        version: the new directory's name; Kubernetes calls it ``..2026_11_22_…``.
        files: all that the secret holds from now on, by name, a dot in it written as ``__``.
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
