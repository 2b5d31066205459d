"""Handle secrets: files of passwords, keystores, seeds and private keys, and objects that must not be copied."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final, NoReturn, SupportsIndex

_OWNER_ONLY: Final = 0o600
_MAX_PASSWORD_BYTES: Final = 4096


class KeyFileError(Exception):
    """A keystore, a seed file or a password file cannot be used; the text is the reason."""


class NotCopyable:
    """A base class for objects that hold secrets: they cannot be pickled or copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a key cannot be pickled or copied")


class Fingerprints:
    """Recognises a file and its password at the next load, by a hash that is useless outside this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)

    def of(self, password: bytes, text: bytes) -> bytes:
        """Return the keyed hash of a file and its password."""
        return hashlib.blake2b(len(password).to_bytes(8) + password + text, key=self._key).digest()


def read_at_most(path: Path, max_bytes: int) -> bytes | None:
    """Return a file's content, or ``None`` if it is longer than ``max_bytes``.

    It does not raise for a long file, so that no traceback holds a part of the secret.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    return content if len(content) <= max_bytes else None


def read_password(path: Path) -> bytes:
    """Return the password in a file: its bytes without one newline at the end.

    Raises:
        KeyFileError: the file cannot be read, or is too long.
    """
    try:
        password = read_at_most(path, _MAX_PASSWORD_BYTES)
    except OSError as exc:
        raise KeyFileError(f"the password file {path} cannot be read ({exc.strerror})") from exc
    if password is None:
        raise KeyFileError(f"the password file {path} is not a password: it is over {_MAX_PASSWORD_BYTES} bytes")
    for newline in (b"\r\n", b"\n"):
        if password.endswith(newline):
            return password[: -len(newline)]
    return password


def write_new_file(path: Path, content: bytes) -> None:
    """Create a file with mode 0600 and sync it to the disk; blocking.

    The file appears complete or not at all, and replaces no other file.

    Raises:
        FileExistsError: the file exists already.
        OSError: the file cannot be written.
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
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Sync a directory's entries to the disk; blocking."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
