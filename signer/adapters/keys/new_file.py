"""Writes a secret's file: for its owner's eyes only, whole or not at all, and never in another file's place."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

_OWNER_ONLY: Final = 0o600


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, with mode 0600, and have it on the disk; blocking.

    Raises:
        FileExistsError: it is there already.
        OSError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(part)
    finally:
        part.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
