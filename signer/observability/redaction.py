"""The second wall: what looks like a secret leaves no log line, whoever wrote it.

The first wall is that nobody logs one: audit events and exchanges have no field that could hold it. This wall is for
libraries, and for the mistake that somebody will make.

* The value of a field whose name speaks of a secret becomes ``***``.
* So does, within any text, what has a secret's form: private keys, signatures and digests in hex; long base64
  (challenges, signatures, key material); JSON Web Tokens and bearer tokens; PEM blocks; passwords inside URLs. A
  challenge in the clear hides the whole text it stands in.
* Bytes and objects are named by their type and never shown; texts are cut at ``LONGEST`` characters.

Only ``key_uri`` and ``request_id`` may be long without being suspected of base64: paths, names of cloud resources and
other people's trace ids look the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final

MASK: Final = "***"
LONGEST: Final = 4096

_KNOWN_HARMLESS: Final = frozenset({"challenge_id", "idempotency_key"})
_MAY_BE_LONG: Final = frozenset({"key_uri", "request_id"})
_EXCEPTION: Final = "exc_info"
_TELLING: Final = (
    "signature",
    "token",
    "password",
    "passphrase",
    "passwd",
    "secret",
    "authorization",
    "challenge",
    "mnemonic",
    "private",
    "cookie",
    "credential",
    "preimage",
    "api_key",
    "apikey",
)
"""Anywhere in a field's name, in any case."""

_TELLING_WORDS: Final = frozenset({"pin", "body", "seed", "jwt", "auth", "args", "kwargs", "locals"})
"""As a whole word of a field's name only: an "opinion" holds no PIN."""

_SHAPES: Final = r"""
    -----BEGIN[ ][A-Z0-9 ]+-----.*?(?:-----END[ ][A-Z0-9 ]+-----|\Z)
  | (?<=://)[^@\s:]{0,64}+:\S{0,256}(?=@)
  | (?i:\b(?:bearer|basic))\s+[A-Za-z0-9+/_.~=-]{16,}
  | \beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?
  | \b(?:0x)?[0-9a-fA-F]{64,}+
  | \bcs_[A-Za-z0-9_-]{43}
"""
_SECRET: Final = re.compile(
    rf"{_SHAPES} | [A-Za-z0-9_-]{{43,}}+={{0,2}} | [A-Za-z0-9+/]{{64,}}+={{0,2}}",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_SECRET_WHATEVER_LENGTH: Final = re.compile(_SHAPES, re.VERBOSE | re.DOTALL | re.ASCII)
_SIWE: Final = " wants you to sign in with your "

# Most texts are harmless: this, and a few substrings, say so in a tenth of the time that the shapes need.
_LONG_RUN: Final = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43}", re.ASCII)
_SHORTEST_RUN: Final = 43

_DEEPEST: Final = 4


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what looks like a secret; a structlog processor.

    Only ``exc_info`` passes, for ``logs.show_error``, which runs next and shows types and frames only.
    """
    for name, value in event.items():
        if isinstance(value, str):
            if is_telling(name):
                event[name] = MASK
            else:
                event[name] = masked_name(value) if name in _MAY_BE_LONG else masked_text(value)
        elif name != _EXCEPTION and (not (value is None or isinstance(value, (int, float))) or is_telling(name)):
            event[name] = _masked(name, value, 0)
    return event


def masked_text(text: str) -> str:
    """Give the text with ``***`` for whatever has a secret's form."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    if not _is_suspect(text):
        return text
    return MASK if _SIWE in text else _SECRET.sub(MASK, text)


def masked_name(name: str) -> str:
    """Give a URI or an id with ``***`` for whatever has a secret's form, length alone being none."""
    return _masked_name(name) if _is_suspect(name) else name


@lru_cache(maxsize=1024)  # the same few keys again and again
def _masked_name(name: str) -> str:
    return _SECRET_WHATEVER_LENGTH.sub(MASK, name)


def _is_suspect(text: str) -> bool:
    """Whether the text has to be looked at closely; errs on that side only."""
    lowered = text.lower()
    return (
        "@" in text
        or "-----" in text
        or "eyj" in lowered
        or "bearer" in lowered
        or "basic" in lowered
        or (len(text) >= _SHORTEST_RUN and (_SIWE in text or _LONG_RUN.search(text) is not None))
    )


@lru_cache(maxsize=1024)
def is_telling(name: str) -> bool:
    """Whether a field's name speaks of a secret. A path or a URI that a mapping is keyed by is no name."""
    lowered = name.lower()
    if lowered in _KNOWN_HARMLESS or "/" in name or ":" in name:
        return False
    return any(part in lowered for part in _TELLING) or not _TELLING_WORDS.isdisjoint(re.split(r"[^a-z]+", lowered))


def _masked(name: object, value: object, depth: int) -> object:
    """Mask a value of any kind."""
    if isinstance(name, str) and is_telling(name):
        return MASK
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return masked_text(value)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {masked_text(str(key)): _masked(key, inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_masked(None, inner, depth + 1) for inner in value]
    return f"<{type(value).__name__}>"
