"""Handle secrets: files of passwords, keystores, seeds and private keys, and objects that must not be copied."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, NoReturn, SupportsIndex

_MAX_PASSWORD_BYTES: Final = 4096
_FINGERPRINT_KEY: Final = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)


class KeyFileError(Exception):
    """A keystore, a seed file or a password file cannot be used; the text is the reason, ``cause`` a stable word."""

    def __init__(self, reason: str, cause: str = "damaged") -> None:
        super().__init__(reason)
        self.cause = cause


class NotCopyable:
    """A base class for objects that hold secrets: they cannot be pickled or copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a key cannot be pickled or copied")


def fingerprint_of(secret: bytes | bytearray, text: bytes | bytearray = b"") -> bytes:
    """Return a hash that recognises a secret and its file at the next load. It is useless outside this process."""
    return hashlib.blake2b(len(secret).to_bytes(8) + secret + text, key=_FINGERPRINT_KEY).digest()


def read_file(path: Path, max_bytes: int) -> bytearray:
    """Return a file's content, in the one buffer that holds it; blocking.

    Raises:
        KeyFileError: the file cannot be read, or is longer.
    """
    content, length = bytearray(max_bytes + 1), 0
    try:
        with path.open("rb", buffering=0) as file:
            while more := file.readinto(memoryview(content)[length:]):
                length += more
    except OSError as exc:
        cause = "permission" if isinstance(exc, PermissionError) else "unreachable"
        raise KeyFileError(f"cannot be read ({exc.strerror})", cause) from exc
    del content[length:]
    if length > max_bytes:
        content.clear()  # a traceback could show it
        raise KeyFileError(f"is too long (over {max_bytes} bytes): name another file", "error")
    return content


def text_of(content: bytes | bytearray) -> str:
    """Return the text of a key file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""
    return content.decode(json.detect_encoding(content), "replace")


def read_secret(path: Path, max_bytes: int) -> bytearray:
    """Return the password or PIN in a file: its bytes without one newline at the end; blocking.

    Raises:
        KeyFileError: the file cannot be read, is longer, or it is not certain which of its bytes are the secret.
    """
    secret = read_file(path, max_bytes)
    for newline in (b"\r\n", b"\n"):
        if secret.endswith(newline):
            del secret[-len(newline) :]
            break
    doubt = _doubt_about(secret)
    if doubt is not None:
        secret.clear()  # a traceback could show it
        raise KeyFileError(doubt, "authentication")
    return secret


def _doubt_about(secret: bytearray) -> str | None:
    """Return why a secret may have bytes that its user did not mean, and what to do; random bytes are not in doubt."""
    every_other = memoryview(secret)[::2], memoryview(secret)[1::2]
    has_mark = secret.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and 0 in secret
    if has_mark or (len(secret) > 1 and not all(map(any, every_other))):
        return "is UTF-16 text: save it as UTF-8"
    if secret.startswith(codecs.BOM_UTF8):
        return "begins with a byte order mark: save it as UTF-8 without one"
    if secret.endswith((b"\n", b"\r")) and secret.decode(errors="ignore").encode() == secret:
        return "ends with more than one line break, or with an incomplete one: remove all at its end"
    return None


def read_password(path: Path) -> bytes:
    """Return the password in a file: its bytes without one newline at the end; blocking.

    Raises:
        KeyFileError: as ``read_secret``; the text names the file.
    """
    try:
        return bytes(read_secret(path, _MAX_PASSWORD_BYTES))
    except KeyFileError as refusal:
        raise KeyFileError(f"the password file {path} {refusal}", refusal.cause) from refusal


def decode_secret(secret: bytearray) -> str:
    """Return a secret as text.

    Raises:
        KeyFileError: it is not UTF-8, or there is none.
    """
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyFileError("is not UTF-8 text: save it as UTF-8", "authentication") from None
    if not text.strip():
        raise KeyFileError("is empty: write the secret into it", "authentication")
    return text


def write_new_file(path: Path, content: bytes) -> None:
    """Create a file with mode 0600 and sync it to the disk; blocking.

    The file appears complete or not at all, and replaces no other file.

    Raises:
        FileExistsError: the file exists already.
        OSError: the file cannot be written.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as part:  # mode 0600
        part.write(content)
        part.flush()
        os.fsync(part.fileno())
        path.hardlink_to(part.name)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Sync a directory's entries to the disk; blocking."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
