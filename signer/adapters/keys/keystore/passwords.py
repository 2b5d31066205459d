"""Where the passwords of keystores come from: one file for all, a directory, or the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.secret_files import KeyFileError, read_password

PASSWORD_SUFFIXES: Final = (".txt", ".pass")
"""The suffixes of password files, in the order in which they are tried."""


class PasswordSource:
    """Finds the password of a keystore: one for all, in a file or typed at a terminal. Every method blocks."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source

    def check(self) -> None:
        """Check that passwords can be read at all.

        Raises:
            KeyBackendError: they cannot.
        """
        try:
            self.read_for(Path(), None)
        except KeyFileError as refusal:
            raise KeyBackendError(str(refusal), refusal.cause) from refusal

    def is_password_file(self, path: Path) -> bool:
        """Return whether ``path`` is a password file and not a keystore."""
        return path == self._source or path.suffix.lower() in PASSWORD_SUFFIXES

    def read_for(self, keystore: Path, address: str | None) -> bytes:  # noqa: ARG002 - the same for all
        """Return the password of a keystore.

        Args:
            keystore: its file.
            address: the address in the file (EIP-55), if it has one.

        Raises:
            KeyFileError: there is no password, or it cannot be read.
        """
        return self._source if isinstance(self._source, bytes) else read_password(self._source)


class PasswordDirectory(PasswordSource):
    """A directory with one password file for each keystore."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._directory = directory
        self._files: dict[str, Path] = {}

    def check(self) -> None:
        """See ``PasswordSource.check``; also lists the directory."""
        try:
            self._files = {path.name.lower(): path for path in self._directory.iterdir()}
        except OSError as exc:
            raise KeyBackendError(
                f"the password directory {self._directory} cannot be read ({exc.strerror}): "
                "name a directory that the signer's user may read",
            ) from exc

    def read_for(self, keystore: Path, address: str | None) -> bytes:
        """See ``PasswordSource.read_for``."""
        names = [keystore.name.lower().removesuffix(".json")]
        if address is not None:
            names += [address.lower().removeprefix("0x"), address.lower()]
        for name in names:
            for suffix in PASSWORD_SUFFIXES:
                if (path := self._files.get(name + suffix)) is not None:
                    return read_password(path)
        raise KeyFileError(
            f"has no password: {self._directory} has no file {names[0]}{PASSWORD_SUFFIXES[0]}", "authentication"
        )
