"""Mask secrets in log lines.

This is the second line of defence. The first is that audit events and request summaries have no field for a secret.
Redaction covers libraries and mistakes.

* The value of a field with a sensitive name becomes ``***``.
* In every text, each part that has the form of a secret becomes ``***``, too: private keys, signatures and digests in
  hex; long base64 (challenges, signatures, key material); JSON Web Tokens and bearer tokens; PEM blocks; passwords of
  at most 256 characters in URLs, after a user of at most 64. A text that contains a decoded challenge is masked
  completely.
* Bytes and objects are shown as their type only. Texts are cut to twice ``MAX_LENGTH`` characters, masked, and cut to
  ``MAX_LENGTH``; ``key_uri`` and ``request_id`` are not cut.

Long runs of base64 characters are masked, except in ``key_uri`` and ``request_id``: a path, the name of a cloud
resource or a trace id there looks the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

MASK: Final = "***"
MAX_LENGTH: Final = 4096

_HARMLESS_NAMES: Final = frozenset({"challenge_id"})
_MAY_BE_LONG: Final = frozenset({"key_uri", "request_id"})
_SENSITIVE_PARTS: Final = (
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
"""A field is sensitive if its name contains one of these, in any case."""

_SENSITIVE_WORDS: Final = frozenset({"pin", "body", "seed", "jwt", "auth", "args", "kwargs", "locals"})
"""A field is sensitive if one of these is a whole word of its name: "user_pin", but not "opinion"."""

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
_SECRET_OF_ANY_LENGTH: Final = re.compile(_SHAPES, re.VERBOSE | re.DOTALL | re.ASCII)
_LAST_WORD: Final = re.compile(r"\S*\Z")
_SIWE: Final = " wants you to sign in with your "

# Most texts hold no secret. Looking for a few substrings first takes a tenth of the time of the full patterns.
_RUN_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_RUNS: Final = bytes(ord("x") if byte in _RUN_CHARACTERS else ord(" ") for byte in range(256))
_LONG_RUN: Final = b"x" * 43

_MAX_DEPTH: Final = 4


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with ``***`` in place of what looks like a secret."""
    return {name: _redacted(name, value) for name, value in fields.items()}


def is_clean(fields: Mapping[str, Any], line: str) -> bool:
    """Return whether the texts of a line hold no secret: ``True`` is certain, ``False`` may be wrong.

    Args:
        fields: numbers and texts, under names that are not sensitive.
        line: the same as JSON in ASCII. Its escapes make runs longer, never shorter, so no secret is missed.
    """
    if len(line) > MAX_LENGTH:
        return False
    for name in _MAY_BE_LONG:
        value = fields.get(name)
        if isinstance(value, str) and len(value) >= len(_LONG_RUN) and _mask_shapes(value) == value:
            line = line.replace(value, "", 1)
    has_space = " " in line or "\\" in line
    return not (_has_suspect_words(line) if has_space else "@" in line or "eyJ" in line) and not _has_long_run(line)


def masked_text(text: str) -> str:
    """Return the text with ``***`` in place of whatever has the form of a secret."""
    start = text[: 2 * MAX_LENGTH]
    if len(text) > len(start):
        start = _LAST_WORD.sub("…", start)  # a secret that is cut in two would not be found
    if _is_suspect(start):
        start = MASK if _SIWE in start else _SECRET.sub(MASK, start)
    return start[:MAX_LENGTH] + "…" if len(start) > MAX_LENGTH else start


def masked_identifier(identifier: str) -> str:
    """Return a URI or an id, masked as a text, except that length alone does not make a secret."""
    return _mask_shapes(identifier) if _is_suspect(identifier) else identifier


@lru_cache(maxsize=1024)
def _mask_shapes(identifier: str) -> str:
    return _SECRET_OF_ANY_LENGTH.sub(MASK, identifier)


def _is_suspect(text: str) -> bool:
    """Return whether the text may hold a secret: ``False`` is certain, ``True`` may be wrong."""
    return _has_suspect_words(text) or _has_long_run(text)


def _has_suspect_words(text: str) -> bool:
    lowered = text.lower()
    return (
        "@" in text or "-----" in text or "eyj" in lowered or "bearer" in lowered or "basic" in lowered or _SIWE in text
    )


def _has_long_run(text: str) -> bool:
    return _LONG_RUN in text.encode("ascii", "replace").translate(_RUNS)


@lru_cache(maxsize=1024)
def is_sensitive_name(name: str) -> bool:
    """Return whether a field with this name may hold a secret. A name with ``/`` or ``:`` is a path or a URI."""
    lowered = name.lower()
    if lowered in _HARMLESS_NAMES or "/" in name or ":" in name:
        return False
    return any(part in lowered for part in _SENSITIVE_PARTS) or not _SENSITIVE_WORDS.isdisjoint(
        re.split(r"[^a-z]+", lowered)
    )


def _redacted(name: str, value: object) -> object:
    if isinstance(value, str) and name in _MAY_BE_LONG:
        return masked_identifier(value)
    return _masked(name, value, 0)


def _masked(name: object, value: object, depth: int) -> object:
    """Mask the value of a field, or what is in it, at most ``_MAX_DEPTH`` levels deep."""
    if isinstance(name, str) and is_sensitive_name(name):
        return MASK
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return masked_text(value)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {masked_text(str(key)): _masked(key, inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_fields"):  # not a named tuple
            return [_masked(None, inner, depth + 1) for inner in value]
    return f"<{type(value).__name__}>"
