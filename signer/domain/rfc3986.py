"""The part of RFC 3986's grammar that EIP-4361 uses: ``URI``, ``authority`` and ``pchar``.

The names are those of the RFC's appendix A. The expressions are ASCII and must be used with ``fullmatch``. Their runs
are possessive, so no input causes backtracking and matching takes linear time.
"""

from __future__ import annotations

import re
from typing import Final

UNRESERVED: Final = r"A-Za-z0-9\-._~"
SUB_DELIMS: Final = r"!$&'()*+,;="
GEN_DELIMS: Final = r":/?#\[\]@"
_PCT: Final = r"%[0-9A-Fa-f]{2}"


def _run(characters: str) -> str:
    """Return an expression for any number of ``characters`` and percent-encoded octets."""
    return rf"(?:[{characters}]++|{_PCT})*+"


_H16: Final = r"[0-9A-Fa-f]{1,4}"
_DEC_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"{_DEC_OCTET}(?:\.{_DEC_OCTET}){{3}}"
_LS32: Final = rf"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6: Final = "|".join(
    (
        rf"(?:{_H16}:){{6}}{_LS32}",
        rf"::(?:{_H16}:){{5}}{_LS32}",
        rf"(?:{_H16})?::(?:{_H16}:){{4}}{_LS32}",
        rf"(?:(?:{_H16}:){{0,1}}{_H16})?::(?:{_H16}:){{3}}{_LS32}",
        rf"(?:(?:{_H16}:){{0,2}}{_H16})?::(?:{_H16}:){{2}}{_LS32}",
        rf"(?:(?:{_H16}:){{0,3}}{_H16})?::{_H16}:{_LS32}",
        rf"(?:(?:{_H16}:){{0,4}}{_H16})?::{_LS32}",
        rf"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
        rf"(?:(?:{_H16}:){{0,6}}{_H16})?::",
    ),
)
_IPV_FUTURE: Final = rf"[vV][0-9A-Fa-f]+\.[{UNRESERVED}{SUB_DELIMS}:]+"
_IP_LITERAL: Final = rf"\[(?:{_IPV6}|{_IPV_FUTURE})\]"
_USERINFO: Final = _run(UNRESERVED + SUB_DELIMS + ":")
_REG_NAME: Final = _run(UNRESERVED + SUB_DELIMS)  # includes every IPv4address
_AUTHORITY: Final = rf"(?:{_USERINFO}@)?(?:{_IP_LITERAL}|{_REG_NAME})(?::[0-9]*+)?"

_PCHAR: Final = UNRESERVED + SUB_DELIMS + ":@"
_SEGMENT_NZ: Final = rf"(?:[{_PCHAR}]|{_PCT}){_run(_PCHAR)}"
_PATH_ABEMPTY: Final = rf"(?:/{_run(_PCHAR)})*+"
_HIER_PART: Final = (
    rf"(?://(?P<authority>{_AUTHORITY}){_PATH_ABEMPTY}"
    rf"|/(?:{_SEGMENT_NZ}{_PATH_ABEMPTY})?"
    rf"|{_SEGMENT_NZ}{_PATH_ABEMPTY}"
    r"|)"
)
_QUERY: Final = _run(_PCHAR + "/?")

SCHEME: Final = r"[A-Za-z][A-Za-z0-9+\-.]*+"
URI: Final = re.compile(rf"(?P<scheme>{SCHEME}):{_HIER_PART}(?:\?{_QUERY})?(?:\#{_QUERY})?", re.ASCII)
AUTHORITY: Final = re.compile(_AUTHORITY, re.ASCII)
PCHARS: Final = re.compile(_SEGMENT_NZ, re.ASCII)
