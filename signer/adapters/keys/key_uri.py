"""Key URIs, ``scheme:path?name=value&…`` (RFC 3986): they name where keys are, and can be logged.

* A URI contains no secret. Parameters such as ``password=`` and ``pin-value=``, and user names before a host, are
  refused.
* A parameter has a name and a value and appears once. Unknown parameters are refused, because a mistyped one would
  otherwise be ignored.
* Names and values are percent-decoded (RFC 3986 §2.1; ``+`` is a plus). The path is kept as written, because some
  schemes (RFC 7512) must be split before they are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from signer.adapters.keys.backend import KeyUriInvalid
from signer.domain import rfc3986

_SECRET_PARAMETERS: Final = frozenset(
    {"mnemonic", "passphrase", "password", "pin", "pin-value", "pin_value", "secret", "seed", "token"},
)
_FILE_SCHEMES: Final = frozenset({"keystore", "hd"})
"""The schemes whose path is that of a file or directory."""
_FILE_SUFFIXES: Final = ("_file", "_dir")
"""How the names of parameters end that name a file or directory."""


@dataclass(frozen=True, slots=True)
class KeyUri:
    """A parsed key URI.

    Attributes:
        scheme: in lower case (RFC 3986 §3.1).
        authority: the part between ``//`` and the path, or ``None``.
        path: as written, percent-encoded.
        query: the decoded parameters.
    """

    scheme: str
    authority: str | None
    path: str
    query: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a key URI.

        Raises:
            KeyUriInvalid: the text is not a key URI, or contains a secret. The text is not quoted.
        """
        if rfc3986.URI.fullmatch(text) is None:
            raise KeyUriInvalid(
                "not a key URI (RFC 3986): write scheme:path?name=value, for example "
                "keystore:/run/secrets/keys?password_file=/run/secrets/password (a space is %20)",
            )
        parts = urlsplit(text)
        shown = f"{parts.scheme}:{parts.path.partition(';')[0]}"  # a PIN could follow the ";" (RFC 7512)
        if "@" in parts.netloc:
            raise KeyUriInvalid(f"the key URI {shown} has a user before its host: put secrets into files")
        if "#" in text:
            raise KeyUriInvalid(f"the key URI {shown} has a fragment (#…): write # as %23 if it belongs to a name")
        return cls(parts.scheme, parts.netloc or None, parts.path, MappingProxyType(_parameters(parts.query, shown)))

    def allow_only(self, *names: str) -> None:
        """Check that every parameter is one of ``names``.

        Raises:
            KeyUriInvalid: a parameter is unknown.
        """
        unknown = sorted(self.query.keys() - set(names))
        if unknown:
            raise KeyUriInvalid(
                f"the key URI {self} has the parameter {unknown[0]!r}, which {self.scheme}: does not know; "
                f"it knows {', '.join(names) or 'none'}",
            )

    def file_path(self) -> Path:
        """Return the path as a file's.

        Raises:
            KeyUriInvalid: the path is empty, or the URI has a host.
        """
        if self.authority is not None:
            raise KeyUriInvalid(f"the key URI {self} names a host: a file is written {self.scheme}:/path, without //")
        return _as_path(unquote(self.path), f"the key URI {self}")

    def file_parameter(self, name: str) -> Path | None:
        """Return a parameter as a file's path, or ``None`` if the URI does not have it.

        Raises:
            KeyUriInvalid: the value cannot be a path.
        """
        value = self.query.get(name)
        return None if value is None else _as_path(value, f"the parameter {name!r} of the key URI {self}")

    def pin_file(self) -> Path | None:
        """Return the file with the PIN (``pin-source``, RFC 7512 §2.4), or ``None`` if the URI does not have it.

        Raises:
            KeyUriInvalid: the value is not the absolute path of a file on this machine.
        """
        source = self.query.get("pin-source")
        if source is None:
            return None
        path = source.removeprefix("file:")
        path = path.removeprefix("//") if source.startswith("file:///") else path
        if not path.startswith("/") or path.startswith("//") or "\x00" in path:
            raise KeyUriInvalid(f"the key URI {self} has a pin-source that is not a file: write pin-source=file:/path")
        return Path(path)

    def files(self) -> Sequence[Path]:
        """Return the files and directories with keys and secrets that the URI names, whether they exist or not.

        A part that cannot be a path is left out: the backend refuses it. A library (``module-path``) contains no key.
        """
        parts: list[Callable[[], Path | None]] = [self.file_path] if self.scheme in _FILE_SCHEMES else []
        parts += [partial(self.file_parameter, name) for name in self.query if name.endswith(_FILE_SUFFIXES)]
        found: list[Path | None] = []
        for part in (*parts, self.pin_file):
            with suppress(KeyUriInvalid):
                found.append(part())
        return [path for path in found if path is not None]

    def as_text(self) -> str:
        """Return the whole URI."""
        return f"{self}?{'&'.join(f'{name}={quote(value)}' for name, value in self.query.items())}"

    def __str__(self) -> str:
        """Return scheme, host and path, which can be logged."""
        return f"{self.scheme}:{'' if self.authority is None else '//' + self.authority}{self.path}"


def file_uri(scheme: str, path: Path) -> str:
    """Return the URI of a file, for ``BackendKey.uri``."""
    return f"{scheme}:{quote(str(path))}"


def _parameters(query: str, shown: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, separator, value = (unquote(part) for part in pair.partition("="))
        if name.lower() in _SECRET_PARAMETERS:
            raise KeyUriInvalid(
                f"the key URI {shown} has a secret in its parameter {name!r}: put it into a file and name that file",
            )
        if not name or not separator or not value or name in parameters:
            raise KeyUriInvalid(f"the key URI {shown} has a parameter without a name or a value, or has one twice")
        parameters[name] = value
    return parameters


def _as_path(text: str, what: str) -> Path:
    if not text or "\x00" in text:
        raise KeyUriInvalid(f"{what} names no file")
    return Path(text)
