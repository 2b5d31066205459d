r"""``pkcs11:`` URIs (RFC 7512): which token, which of its keys, and how to reach them.

::

    pkcs11:token=cards?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/secrets/pin
    pkcs11:token=cards;serial=9f3c…;object=owner%201;id=%01%02?module-path=…&pin-source=…&x-sessions=8

===================  =====  ==========================================================================================
attribute            where  means
===================  =====  ==========================================================================================
``token``            path   the token's label; this or ``serial`` has to be there, and exactly one token may fit
``serial``           path   the token's serial number
``manufacturer``     path   the token's, in addition
``model``            path   the token's, in addition
``object``           path   only the key with this ``CKA_LABEL``; without ``object`` and ``id`` all keys are meant
``id``               path   only the key with this ``CKA_ID``
``type``             path   ``private``, if it is there
``module-path``      query  the PKCS #11 library, an absolute path
``pin-source``       query  the PIN: ``file:/path``; left out for a token that has a PIN pad, or wants none
``x-sessions``       query  sessions, and threads, that sign at once: 1 … 64, 4 by default
``x-timeout``        query  seconds after which a call into the library hangs: 3 by default
===================  =====  ==========================================================================================

* ``pin-value`` is refused, in the query and in the path, and so is a ``pin-source`` that is no file: a URI is shown.
* Names and values are percent-decoded after they were taken apart (§2.3); texts are UTF-8, ``id`` is bytes.
* Slots cannot be named: their numbers change. Attributes that we do not know are refused, for what they say about
  which token is meant would else be passed over (§2.3).
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

_ABOUT_THE_TOKEN: Final = ("token", "serial", "manufacturer", "model")
_PATH_ATTRIBUTES: Final = (*_ABOUT_THE_TOKEN, "object", "id", "type")
_QUERY_ATTRIBUTES: Final = ("module-path", "pin-source", "x-sessions", "x-timeout")
_PIN_ATTRIBUTES: Final = frozenset({"pin-value", "pin-source"})
_MAX_SESSIONS: Final = 64
_SESSIONS: Final = re.compile(r"[1-9][0-9]?", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?", re.ASCII)
_NOT_ESCAPED: Final = ":[]@!$'()*+,="  # pk11-res-avail of §2.3, but for "&", which only makes a shell command longer


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A ``pkcs11:`` URI, taken apart.

    Attributes:
        module: the library's path.
        token: what the token has to say of itself: some of ``token``, ``serial``, ``manufacturer`` and ``model``.
        label: the only key's ``CKA_LABEL``; ``None`` for any.
        key_id: the only key's ``CKA_ID``; ``None`` for any.
        pin_file: where the PIN is, if it is anywhere.
        sessions: how many to sign with at once.
        timeout: seconds after which a call into the library counts as hanging.
    """

    module: Path
    token: tuple[tuple[str, bytes], ...]
    label: bytes | None = None
    key_id: bytes | None = None
    pin_file: Path | None = None
    sessions: int = SESSIONS
    timeout: float = TIMEOUT

    @classmethod
    def read(cls, uri: KeyUri) -> Self:
        """Read a key URI of the scheme ``pkcs11``.

        Raises:
            KeyUriInvalid: with what to write instead.
        """
        path = _path_attributes(uri)
        uri.allow_only(*_QUERY_ATTRIBUTES)
        if path.get("type", b"private") != b"private":
            raise KeyUriInvalid(f"the key URI {uri} has another type than private: leave type= out")
        token = tuple((name, path[name]) for name in _ABOUT_THE_TOKEN if name in path)
        if not {"token", "serial"} & path.keys():
            raise KeyUriInvalid(f"the key URI {uri} does not say which token: add token=<label> or serial=<number>")
        return cls(
            module=_module(uri),
            token=token,
            label=path.get("object"),
            key_id=path.get("id"),
            pin_file=_pin_file(uri),
            sessions=_sessions(uri),
            timeout=_timeout(uri),
        )

    @property
    def names_one_key(self) -> bool:
        """Whether it is about one key, and not about all that the token holds."""
        return self.label is not None or self.key_id is not None

    def of_key(self, label: bytes, key_id: bytes) -> str:
        """Name one of the token's keys, without module and PIN."""
        name = _name_of_token(self.token)
        if label:
            name += f";object={_escaped('object', label)}"
        return f"{name};id={_escaped('id', key_id)}" if key_id else name

    def __str__(self) -> str:
        """Give the path, which is fit for a log line."""
        return self.of_key(self.label or b"", self.key_id or b"")


def _path_attributes(uri: KeyUri) -> dict[str, bytes]:
    pairs = [pair.partition("=") for pair in uri.path.split(";")]
    if any(name.lower() in _PIN_ATTRIBUTES for name, _, _ in pairs):
        raise KeyUriInvalid("a pkcs11: URI has a PIN attribute in its path: write ?pin-source=file:/path behind it")
    if uri.authority is not None:
        raise KeyUriInvalid(f"the key URI {uri} names a host: write pkcs11:token=…, without //")
    attributes: dict[str, bytes] = {}
    for name, separator, value in pairs:
        if name and name not in _PATH_ATTRIBUTES:
            raise KeyUriInvalid(
                f"the key URI {uri} has the attribute {name!r}, which cannot be asked for here; "
                f"there are {', '.join(_PATH_ATTRIBUTES)}",
            )
        if not name or not separator or not value or name in attributes:
            raise KeyUriInvalid(f"the key URI {uri} has an attribute without a name or a value, or has one twice")
        attributes[name] = unquote_to_bytes(value)
    return attributes


def _module(uri: KeyUri) -> Path:
    path = uri.file_parameter("module-path")
    if path is None or not path.is_absolute():
        raise KeyUriInvalid(
            f"the key URI {uri} does not say which library: add module-path=<absolute path>, "
            "for example module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
    return path


def _pin_file(uri: KeyUri) -> Path | None:
    source = uri.query.get("pin-source")
    if source is None:
        return None
    path = source.removeprefix("file:")
    path = path.removeprefix("//") if source.startswith("file:///") else path
    if not path.startswith("/") or path.startswith("//") or "\x00" in path:
        raise KeyUriInvalid(f"the key URI {uri} has a pin-source that is no file: write pin-source=file:/path")
    return Path(path)


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
    # §2.3: `id` is bytes, each of them better escaped.
    return f"%{value.hex('%').upper()}" if name == "id" else quote(value, safe=_NOT_ESCAPED)
