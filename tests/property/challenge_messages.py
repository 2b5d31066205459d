"""Hypothesis strategies: EIP-4361 messages that are valid by construction, and mutations of them.

The valid ones follow the ABNF of EIP-4361 and of the RFCs that it names, independently of our expressions.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from hypothesis import strategies as st

from signer.domain.ethereum import checksum_address
from tests.support.messages import Message

UNRESERVED: Final = string.ascii_letters + string.digits + "-._~"
SUB_DELIMS: Final = "!$&'()*+,;="
GEN_DELIMS: Final = ":/?#[]@"

_percent_encoded = st.integers(0, 255).flatmap(lambda octet: st.sampled_from((f"%{octet:02x}", f"%{octet:02X}")))


def _characters(allowed: str, min_size: int = 0, max_size: int = 12) -> st.SearchStrategy[str]:
    """Return runs of ``allowed`` characters and sometimes percent-encoded octets."""
    plain = st.text(allowed, min_size=min_size, max_size=max_size)
    mixed = st.lists(st.one_of(st.sampled_from(allowed), _percent_encoded), min_size=min_size, max_size=max_size)
    return plain | mixed.map("".join)


# --- RFC 3986 ---------------------------------------------------------------------------------------------------------

_h16 = st.text(string.hexdigits, min_size=1, max_size=4)
_ipv4 = st.tuples(*[st.integers(0, 255)] * 4).map(lambda octets: ".".join(map(str, octets)))


@st.composite
def _ipv6(draw: st.DrawFn) -> str:
    """Return eight groups of 16 bits, the last two sometimes as IPv4, a run of groups sometimes shortened to ``::``."""
    groups = [draw(_h16) for _ in range(8)]
    if draw(st.booleans()):
        groups[6:] = [draw(_ipv4)]
    if draw(st.booleans()):
        return ":".join(groups)
    # IPv4 is allowed after `::`, but not before it.
    end = draw(st.integers(1, 8))
    start = draw(st.integers(0, min(end, len(groups)) - 1))
    return ":".join(groups[:start]) + "::" + ":".join(groups[end:])


_ipv_future = st.builds(
    lambda v, version, rest: f"[{v}{version}.{rest}]",
    st.sampled_from("vV"),
    st.text(string.hexdigits, min_size=1, max_size=3),
    st.text(UNRESERVED + SUB_DELIMS + ":", min_size=1, max_size=8),
)
_reg_name = _characters(UNRESERVED + SUB_DELIMS)
_host = st.one_of(_reg_name, _ipv4, _ipv6().map("[{}]".format), _ipv_future)
_userinfo = _characters(UNRESERVED + SUB_DELIMS + ":", max_size=6).map("{}@".format)
_port = st.text(string.digits, max_size=6).map(":{}".format)


def _optional(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.just("") | strategy


authorities = st.tuples(_optional(_userinfo), _host, _optional(_port)).map("".join)
schemes = st.tuples(
    st.sampled_from(string.ascii_letters), st.text(string.ascii_letters + string.digits + "+-.", max_size=6)
).map("".join)
_pchar = UNRESERVED + SUB_DELIMS + ":@"
_segment = _characters(_pchar, max_size=6)
_segment_nz = _characters(_pchar, min_size=1, max_size=6)
_path_abempty = st.lists(_segment.map("/{}".format), max_size=3).map("".join)
_hier_part = st.one_of(
    st.tuples(st.just("//"), authorities, _path_abempty).map("".join),
    st.just("/"),
    st.tuples(st.just("/"), _segment_nz, _path_abempty).map("".join),
    st.tuples(_segment_nz, _path_abempty).map("".join),
    st.just(""),
)
_query = _characters(_pchar + "/?", max_size=8)
uris = st.tuples(
    schemes, st.just(":"), _hier_part, _optional(_query.map("?{}".format)), _optional(_query.map("#{}".format))
).map("".join)

# --- EIP-4361 ---------------------------------------------------------------------------------------------------------

_offsets = st.tuples(st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59)).map(
    lambda parts: f"{parts[0]}{parts[1]:02}:{parts[2]:02}"
)
_fractions = _optional(st.text(string.digits, min_size=1, max_size=12).map(".{}".format))
_moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - an offset on the edge of the calendar
date_times = st.tuples(
    _moments.map(lambda moment: moment.isoformat(timespec="seconds")), _fractions, st.just("Z") | _offsets
).map("".join)

messages = st.builds(
    Message,
    scheme=st.none() | schemes,
    domain=authorities.filter(bool),
    address=st.binary(min_size=20, max_size=20).map(lambda address: checksum_address(f"0x{address.hex()}")),
    statement=st.none() | st.text(UNRESERVED + SUB_DELIMS + GEN_DELIMS + " ", min_size=1, max_size=60),
    uri=uris,
    chain_id=st.integers(1, 10**32 - 1).map(str),
    nonce=st.text(string.ascii_letters + string.digits, min_size=8, max_size=40),
    issued_at=date_times,
    expiration_time=st.none() | date_times,
    not_before=st.none() | date_times,
    request_id=st.none() | _segment_nz,
    resources=st.none() | st.lists(uris, min_size=1, max_size=3).map(tuple),
)

# --- Mutations --------------------------------------------------------------------------------------------------------

HOSTILE: Final = [
    *("\0", "\t", "\n", "\r", "\r\n", "\x0b", "\x1b[31m", "\x7f", "\x85", "\xa0", "\xad", "\u200b", "\u202e", "\u2028"),
    *(
        "\ufeff",
        "\u0661",
        "\uff11",
        "\u0430",
        "\u00e9",
        "\U0001f600",
        " ",
        "  ",
        "%",
        "%0a",
        "%zz",
        '"',
        "\\",
        "<",
        "`",
    ),
    *("@", ":", "//", "://", "[", "]", "?", "#", "- ", "\n- ", "\n\n", "0", "1", "Z", "z", "T", "+00:00", "\\n"),
    *("URI: ", "\nURI: https://evil.example", "\nNonce: evilevil", "\nResources:", "\nRequest ID: ", "https://"),
    " wants you to sign in with your Ethereum account:\n",
]
NEAR_MISSES: Final = [
    *("", " ", "0", "00", "01", "-1", "+1", "1e3", "0x1", "1" * 33, "1" * 129, "abcdefg", "abcdefg-", "2"),
    *("0x" + "0" * 39, "0X" + "0" * 40, "0x" + "0" * 40, "0x" + "a" * 40, "0x" + "A" * 40, "0x" + "5aAeb605" * 5),
    *("2026-11-22T24:00:00Z", "2026-11-22T12:00:60Z", "2026-11-22t12:00:00Z", "2026-11-22T12:00:00z"),
    *("2026-02-29T12:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
    *("2026-11-22T12:00:00+24:00", "2026-11-22T12:00:00+00:60", "2026-11-22", "2026-11-22T12:00:00.Z"),
    *("a:", ":a", "a", "//a", "a://[::]", "a://[v1]", "a://[::1", "a:b c", "a:%", "a@b@c", "a:b", "[1:2:3:4:5:6:7]"),
]
FIELDS: Final = [
    *("scheme", "domain", "address", "statement", "uri", "version", "chain_id", "nonce", "issued_at"),
    *("expiration_time", "not_before", "request_id"),
]

_at = st.integers(0, 9_999).map(lambda n: n / 10_000)  # evenly distributed, unlike st.floats


def _with_wrong_field(message: Message, name: str, value: str) -> bytes:
    return replace(message, **{name: value}).encode()  # type: ignore[arg-type]


def _with_hostile_field(message: Message, name: str, at: float, hostile: str) -> bytes:
    value = getattr(message, name) or ""
    place = int(at * (len(value) + 1))
    return _with_wrong_field(message, name, value[:place] + hostile + value[place:])


def _with_resources(message: Message, resources: list[str]) -> bytes:
    return replace(message, resources=tuple(resources)).encode()


def _spliced(message: Message, at: float, cut: int, inserted: bytes) -> bytes:
    raw = message.encode()
    place = int(at * (len(raw) + 1))
    return raw[:place] + inserted + raw[place + cut :]


def _with_flipped_bit(message: Message, at: float, bit: int) -> bytes:
    raw = bytearray(message.encode())
    raw[int(at * len(raw))] ^= 1 << bit
    return bytes(raw)


def _with_other_case(message: Message, at: float) -> bytes:
    raw = message.text()
    place = int(at * len(raw))
    return (raw[:place] + raw[place : place + 1].swapcase() + raw[place + 1 :]).encode()


def _by_lines(change: Callable[[list[str], int, int], list[str]]) -> Callable[[Message, float, float], bytes]:
    def changed(message: Message, one: float, other: float) -> bytes:
        lines = message.text().split("\n")
        return "\n".join(change(lines, int(one * len(lines)), int(other * len(lines)))).encode()

    return changed


def _swap(lines: list[str], i: int, j: int) -> list[str]:
    lines[i], lines[j] = lines[j], lines[i]
    return lines


mutations: Final[dict[str, st.SearchStrategy[bytes]]] = {
    "wrong field": st.builds(_with_wrong_field, messages, st.sampled_from(FIELDS), st.sampled_from(NEAR_MISSES)),
    "hostile field": st.builds(_with_hostile_field, messages, st.sampled_from(FIELDS), _at, st.sampled_from(HOSTILE)),
    "other resources": st.builds(
        _with_resources, messages, st.lists(uris | st.sampled_from(NEAR_MISSES + HOSTILE), max_size=3)
    ),
    "inserted text": st.builds(
        _spliced, messages, _at, st.just(0), st.sampled_from(HOSTILE).map(str.encode) | st.binary(max_size=3)
    ),
    "cut": st.builds(_spliced, messages, _at, st.integers(1, 40), st.just(b"")),
    "byte": st.builds(_spliced, messages, _at, st.just(1), st.integers(0, 255).map(lambda byte: bytes([byte]))),
    "bit": st.builds(_with_flipped_bit, messages, _at, st.integers(0, 7)),
    "case": st.builds(_with_other_case, messages, _at),
    "line repeated": st.builds(_by_lines(lambda lines, i, j: [*lines[:j], lines[i], *lines[j:]]), messages, _at, _at),
    "line removed": st.builds(_by_lines(lambda lines, i, _: lines[:i] + lines[i + 1 :]), messages, _at, _at),
    "lines swapped": st.builds(_by_lines(_swap), messages, _at, _at),
    "inside another": st.builds(
        lambda outer, inner, at: _spliced(outer, at, 0, inner.encode()), messages, messages, _at
    ),
    "line ends": st.builds(
        lambda message, end: message.text().replace("\n", end).encode(),
        messages,
        st.sampled_from(["\r\n", "\r", "\u2028", "\n\n", ""]),
    ),
    "around": st.builds(
        lambda message, before, after: before.encode() + message.encode() + after.encode(),
        messages,
        st.sampled_from(["", *HOSTILE]),
        st.sampled_from(["", *HOSTILE]),
    ),
}
"""Every mutation by name. A mutated message can still be valid."""
