"""A key URI: RFC 3986's ``scheme:path?query``; the scheme names the backend, the path the place, the query the rest.

Rules:

* A URI holds no secret. Secrets come from files, and a parameter that looks like one (``password=``, ``pin-value=``),
  or a userinfo (``//user:password@host``), is refused. So a URI can be shown.
* Parameters are named once, with a value; a name that the backend does not know is refused, for a mistyped one would
  else be a setting that is not made.
* Names and values are percent-decoded (RFC 3986 §2.1; ``+`` is a plus). The path is kept as written, for some schemes
  (RFC 7512) have to be taken apart before they are decoded; ``file_path`` decodes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from signer.adapters.keys.backend import KeyUriInvalid
from signer.domain import rfc3986

_SECRET_PARAMETERS: Final = frozenset(
    {"mnemonic", "passphrase", "password", "pin", "pin-value", "pin_value", "secret", "seed", "token"},
)


@dataclass(frozen=True, slots=True)
class KeyUri:
    """One key URI, taken apart.

    Attributes:
        scheme: lower case (RFC 3986 §3.1).
        authority: what stands between ``//`` and the path; ``None`` where nothing does.
        path: as written, still percent-encoded.
        query: the parameters, decoded.
    """

    scheme: str
    authority: str | None
    path: str
    query: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key URI.

        Raises:
            KeyUriInvalid: it is not one, or it holds a secret. The text is not quoted, in case it does.
        """
        match = rfc3986.URI.fullmatch(text)
        if match is None:
            raise KeyUriInvalid(
                "a key URI is not one of RFC 3986: write scheme:path?name=value, for example "
                "keystore:/run/secrets/keys?password_file=/run/secrets/password (spaces and the like as %20)",
            )
        parts = urlsplit(text)
        shown = f"{parts.scheme}:{parts.path.partition(';')[0]}"  # behind ";" a PIN could stand (RFC 7512)
        if "@" in parts.netloc:
            raise KeyUriInvalid(f"the key URI {shown} has a userinfo in front of its host: secrets belong into files")
        if "#" in text:
            raise KeyUriInvalid(f"the key URI {shown} has a fragment (#…): write # as %23 if it belongs to a name")
        return cls(parts.scheme, parts.netloc or None, parts.path, MappingProxyType(_parameters(parts.query, shown)))

    def allow_only(self, *names: str) -> None:
        """Return where every parameter is one of ``names``.

        Raises:
            KeyUriInvalid: one is not.
        """
        unknown = sorted(self.query.keys() - set(names))
        if unknown:
            raise KeyUriInvalid(
                f"the key URI {self} has the parameter {unknown[0]!r}, which {self.scheme}: does not know; "
                f"it knows {', '.join(names) or 'none'}",
            )

    def file_path(self) -> Path:
        """Read the path as a file's.

        Raises:
            KeyUriInvalid: there is none, or a host stands in front of it.
        """
        if self.authority is not None:
            raise KeyUriInvalid(f"the key URI {self} names a host: a file is written {self.scheme}:/path, without //")
        return _as_path(self.path, f"the key URI {self}")

    def file_parameter(self, name: str) -> Path | None:
        """Read a parameter as a file's path; ``None`` where it is not there.

        Raises:
            KeyUriInvalid: it cannot be one.
        """
        value = self.query.get(name)
        return None if value is None else _as_path(value, f"the parameter {name!r} of the key URI {self}", decode=False)

    def __str__(self) -> str:
        """Give scheme, host and path: fit for a log line."""
        return f"{self.scheme}:{'' if self.authority is None else '//' + self.authority}{self.path}"


def file_uri(scheme: str, path: Path) -> str:
    """Name a file under a scheme, for ``BackendKey.uri``."""
    return f"{scheme}:{quote(str(path))}"


def _parameters(query: str, shown: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, separator, value = (unquote(part) for part in pair.partition("="))
        if name.lower() in _SECRET_PARAMETERS:
            raise KeyUriInvalid(
                f"the key URI {shown} has a secret in its parameter {name!r}: put it into a file and name that",
            )
        if not name or not separator or not value or name in parameters:
            raise KeyUriInvalid(f"the key URI {shown} has a parameter without a name or a value, or has one twice")
        parameters[name] = value
    return parameters


def _as_path(text: str, what: str, *, decode: bool = True) -> Path:
    decoded = unquote(text) if decode else text
    if not decoded or "\x00" in decoded:
        raise KeyUriInvalid(f"{what} names no file")
    return Path(decoded)
