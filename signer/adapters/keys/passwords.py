"""Where keystores' passwords are: files, read when they are needed and not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.encrypted_json import KeystoreRefused

PASSWORD_SUFFIXES: Final = (".txt", ".pass")
"""What a password's file is called, in the order in which they are looked for."""

_MAX_PASSWORD_BYTES: Final = 4096


class Passwords(Protocol):
    """Finds the password of a keystore; every method blocks."""

    def check(self) -> None:
        """Return where passwords can be read at all.

        Raises:
            KeyBackendError: they cannot.
        """
        ...

    def is_one(self, path: Path) -> bool:
        """Whether ``path`` is a password and no keystore."""
        ...

    def read_for(self, keystore: Path, address: str | None) -> bytes:
        """Read the password of a keystore.

        Args:
            keystore: its file.
            address: EIP-55, where the file says it.

        Raises:
            KeystoreRefused: there is none, or it cannot be read.
        """
        ...


class OnePassword:
    """One file for all keystores."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """See ``Passwords.check``."""
        try:
            read_password(self._path)
        except KeystoreRefused as refusal:
            raise KeyBackendError(f"{refusal}: name a file that the signer's user may read") from refusal

    def is_one(self, path: Path) -> bool:
        """See ``Passwords.is_one``."""
        return path == self._path or _is_named_like_one(path)

    def read_for(self, keystore: Path, address: str | None) -> bytes:  # noqa: ARG002 - the same for all
        """See ``Passwords.read_for``."""
        return read_password(self._path)


class PasswordEach:
    """A directory with one file for each keystore."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Path] = {}

    def check(self) -> None:
        """See ``Passwords.check``; remembers what is there."""
        try:
            self._files = {path.name.lower(): path for path in self._directory.iterdir()}
        except OSError as exc:
            raise KeyBackendError(
                f"the directory of passwords {self._directory} cannot be read ({exc.strerror}): "
                "name one that the signer's user may read",
            ) from exc

    def is_one(self, path: Path) -> bool:
        """See ``Passwords.is_one``."""
        return _is_named_like_one(path)

    def read_for(self, keystore: Path, address: str | None) -> bytes:
        """See ``Passwords.read_for``."""
        names = [keystore.name.lower().removesuffix(".json")]
        if address is not None:
            names += [address.lower().removeprefix("0x"), address.lower()]
        for name in names:
            for suffix in PASSWORD_SUFFIXES:
                if (path := self._files.get(name + suffix)) is not None:
                    return read_password(path)
        raise KeystoreRefused(f"has no password: {self._directory} holds no file {names[0]}{PASSWORD_SUFFIXES[0]}")


def _is_named_like_one(path: Path) -> bool:
    return path.suffix.lower() in PASSWORD_SUFFIXES


def read_password(path: Path) -> bytes:
    """Read a password: the file's bytes without one newline at their end.

    Raises:
        KeystoreRefused: it cannot be read, or is too long for one.
    """
    try:
        password = _read_bounded(path)
    except OSError as exc:
        raise KeystoreRefused(f"the password file {path} cannot be read ({exc.strerror})") from exc
    if password is None:
        raise KeystoreRefused(f"the password file {path} is over {_MAX_PASSWORD_BYTES} bytes: it is no password")
    for newline in (b"\r\n", b"\n"):
        if password.endswith(newline):
            return password[: -len(newline)]
    return password


def _read_bounded(path: Path) -> bytes | None:
    """Read a file; ``None`` where it is too long: whoever raises then has no piece of it among his variables."""
    with path.open("rb") as file:
        content = file.read(_MAX_PASSWORD_BYTES + 1)
    return content if len(content) <= _MAX_PASSWORD_BYTES else None
