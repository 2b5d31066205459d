r"""``pkcs11:`` URIs (RFC 7512): a token, which of its keys, and how to reach them.

::

    pkcs11:token=cards;serial=9f3c…;object=owner%201;id=%01%02?module-path=…&pin-source=…&x-sessions=8

``docs/keys/pkcs11.md`` explains each attribute.

* ``pin-value`` is refused in the query and in the path, and so is a ``pin-source`` that is not a file: URIs are shown.
* Names and values are percent-decoded after the URI is split (§2.3); texts are UTF-8, ``id`` is bytes.
* There is no slot attribute, because slot numbers change. Unknown attributes are refused: they could exclude the token
  that would be used (§2.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri

SCHEME: Final = "pkcs11"
SESSIONS: Final = 4
"""The default of ``x-sessions``."""
TIMEOUT: Final = 3.0
"""The default of ``x-timeout``, in seconds."""

_TOKEN_ATTRIBUTES: Final = ("token", "serial", "manufacturer", "model")
_PATH_ATTRIBUTES: Final = (*_TOKEN_ATTRIBUTES, "object", "id", "type")
_QUERY_ATTRIBUTES: Final = ("module-path", "pin-source", "x-sessions", "x-timeout")
_PIN_ATTRIBUTES: Final = frozenset({"pin-value", "pin-source"})
_MAX_SESSIONS: Final = 64
_SESSIONS: Final = re.compile(r"[1-9][0-9]?", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?", re.ASCII)
_NOT_ESCAPED: Final = ":[]@!$'()*+,="  # pk11-res-avail of §2.3 without "&", which a shell would need quoted


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A parsed ``pkcs11:`` URI.

    Attributes:
        module: the path of the library.
        token: what the token's description has to contain: ``token``, ``serial``, ``manufacturer``, ``model``.
        label: the ``CKA_LABEL`` of the key; ``None`` for any.
        key_id: the ``CKA_ID`` of the key; ``None`` for any.
        pin_file: the file with the PIN.
        sessions: the number of sessions that sign at once.
        timeout: seconds after which a call into the library hangs.
    """

    module: Path
    token: tuple[tuple[str, bytes], ...]
    label: bytes | None = None
    key_id: bytes | None = None
    pin_file: Path | None = None
    sessions: int = SESSIONS
    timeout: float = TIMEOUT

    @classmethod
    def parse(cls, uri: KeyUri) -> Self:
        """Parse a key URI with the scheme ``pkcs11``.

        Raises:
            KeyUriInvalid: the URI is not valid; the text says what to write instead.
        """
        path = _path_attributes(uri)
        uri.allow_only(*_QUERY_ATTRIBUTES)
        if path.get("type", b"private") != b"private":
            raise KeyUriInvalid(f"the key URI {uri} has a type other than private: remove type=")
        token = tuple((name, path[name]) for name in _TOKEN_ATTRIBUTES if name in path)
        if not {"token", "serial"} & path.keys():
            raise KeyUriInvalid(f"the key URI {uri} names no token: add token=<label> or serial=<number>")
        return cls(
            module=_module(uri),
            token=token,
            label=path.get("object"),
            key_id=path.get("id"),
            pin_file=uri.pin_file(),
            sessions=_sessions(uri),
            timeout=_timeout(uri),
        )

    @property
    def names_one_key(self) -> bool:
        """Whether the URI means one key, not all keys of the token."""
        return self.label is not None or self.key_id is not None

    def uri_of_key(self, label: bytes, key_id: bytes) -> str:
        """Return the URI of one of the token's keys, without module and PIN file."""
        name = _name_of_token(self.token)
        if label:
            name += f";object={_escaped('object', label)}"
        return f"{name};id={_escaped('id', key_id)}" if key_id else name

    def __str__(self) -> str:
        """Return the URI without its query, for log lines."""
        return self.uri_of_key(self.label or b"", self.key_id or b"")


def _path_attributes(uri: KeyUri) -> dict[str, bytes]:
    pairs = [pair.partition("=") for pair in uri.path.split(";")]
    if any(name.lower() in _PIN_ATTRIBUTES for name, _, _ in pairs):
        raise KeyUriInvalid("a pkcs11: URI has a PIN in its path: write ?pin-source=file:/path after the path")
    if uri.authority is not None:
        raise KeyUriInvalid(f"the key URI {uri} names a host: write pkcs11:token=…, without //")
    attributes: dict[str, bytes] = {}
    for name, separator, value in pairs:
        if name and name not in _PATH_ATTRIBUTES:
            raise KeyUriInvalid(
                f"the key URI {uri} has the unsupported attribute {name!r}; "
                f"supported are {', '.join(_PATH_ATTRIBUTES)}",
            )
        if not name or not separator or not value or name in attributes:
            raise KeyUriInvalid(f"the key URI {uri} has an attribute without a name or a value, or twice")
        attributes[name] = unquote_to_bytes(value)
    return attributes


def _module(uri: KeyUri) -> Path:
    path = uri.file_parameter("module-path")
    if path is None or not path.is_absolute():
        raise KeyUriInvalid(
            f"the key URI {uri} names no library: add module-path=<absolute path>, "
            "for example module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
    return path


def _sessions(uri: KeyUri) -> int:
    text = uri.query.get("x-sessions", str(SESSIONS))
    if _SESSIONS.fullmatch(text) is None or int(text) > _MAX_SESSIONS:
        raise KeyUriInvalid(f"the key URI {uri} has x-sessions={text}: write a number from 1 to {_MAX_SESSIONS}")
    return int(text)


def _timeout(uri: KeyUri) -> float:
    text = uri.query.get("x-timeout", str(TIMEOUT))
    if _SECONDS.fullmatch(text) is None or not float(text):
        raise KeyUriInvalid(f"the key URI {uri} has x-timeout={text}: write seconds, for example 3 or 0.5")
    return float(text)


@lru_cache(maxsize=64)
def _name_of_token(token: tuple[tuple[str, bytes], ...]) -> str:
    return f"{SCHEME}:" + ";".join(f"{name}={_escaped(name, value)}" for name, value in token)


def _escaped(name: str, value: bytes) -> str:
    # §2.3: every byte of `id` should be escaped.
    return f"%{value.hex('%').upper()}" if name == "id" else quote(value, safe=_NOT_ESCAPED)
