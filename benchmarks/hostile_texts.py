"""Texts of the maximum size that try to make a parser backtrack.

The tests check the verdict on each; ``benchmarks/parse.py`` measures the time.
"""

from __future__ import annotations

from collections.abc import Iterator

from signer.domain.challenge import MAX_BASE64

SIZE = MAX_BASE64 // 4 * 3
"""The maximum size of a message, in bytes."""

_HEAD = "a.b wants you to sign in with your Ethereum account:\n0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n"
_TAIL = "Version: 1\nChain ID: 324\nNonce: abcdefgh\nIssued At: 2026-11-22T12:00:00Z"


def hostile_texts(size: int = SIZE) -> dict[str, bytes]:
    """Return texts of ``size`` bytes or a few less by name; the middle part is repeated as often as possible."""
    return {
        name: (start + unit * ((size - len(start) - len(end)) // len(unit)) + end).encode()
        for name, (start, unit, end) in _parts()
    }


def _parts() -> Iterator[tuple[str, tuple[str, str, str]]]:
    with_uri, before = f"{_HEAD}\n\nURI: ", f"\n{_TAIL}"
    end_of_message = f"{_HEAD}\n\nURI: https://a.b\n{_TAIL}"
    in_brackets = f"]{end_of_message[3:]}"
    yield "letters only", ("", "a", "")
    yield "newlines only", ("", "\n", "")
    yield "first lines", ("", _HEAD, "")
    yield "domain like a scheme", ("", "a+", end_of_message)
    yield "domain of userinfos", ("", "a:", "@" + end_of_message)
    yield "domain of at signs", ("", "@", end_of_message)
    yield "domain of percents", ("", "%41", "%" + end_of_message)
    yield "domain of percents, valid", ("", "%41", end_of_message)
    yield "domain of brackets", ("", "[", end_of_message)
    yield "domain of IPv6 groups", ("[", "1:", in_brackets)
    yield "domain of double colons", ("[", "::", in_brackets)
    yield "statement, valid", (f"{_HEAD}\n", "a ", f"\n\nURI: https://a.b\n{_TAIL}")
    yield "statement, last character wrong", (f"{_HEAD}\n", "a ", f"`\n\nURI: https://a.b\n{_TAIL}")
    yield "statement lines", (f"{_HEAD}\n", "a\n", f"\n\nURI: https://a.b\n{_TAIL}")
    yield "statement of field names", (f"{_HEAD}\n", "URI: ", f"\n\nURI: https://a.b\n{_TAIL}")
    yield "repeated blocks of fields", (f"{_HEAD}\n", f"\nURI: a:\n{_TAIL}\n", "")
    yield "URI path, valid", (f"{with_uri}https://a.b", "/a", before)
    yield "URI path, last character wrong", (f"{with_uri}https://a.b", "/a", f"^{before}")
    yield "URI slashes", (f"{with_uri}a:", "/", f"^{before}")
    yield "URI colons", (f"{with_uri}a:", ":", f"^{before}")
    yield "URI userinfo", (f"{with_uri}a://", "a:", f"^{before}")
    yield "URI at signs", (f"{with_uri}a://", "@", before)
    yield "URI percents", (f"{with_uri}a:", "%41", f"%4{before}")
    yield "URI queries", (f"{with_uri}a:", "?", f"^{before}")
    yield "URI fragments", (f"{with_uri}a:", "#", before)
    yield "URI IPv6", (f"{with_uri}a://[", "1:", f"]{before}")
    yield "URI IPvFuture", (f"{with_uri}a://[v1.", "a:", f"^]{before}")
    yield "URI IPvFuture version", (f"{with_uri}a://[v", "1", f"]{before}")
    yield "URI scheme", (with_uri, "a.", before)
    yield "chain id", (f"{_HEAD}\n\nURI: a:\nVersion: 1\nChain ID: ", "1", "\nNonce: abcdefgh\nIssued At: 2026")
    yield "nonce", (f"{_HEAD}\n\nURI: a:\nVersion: 1\nChain ID: 1\nNonce: ", "a", "\nIssued At: 2026")
    yield "fraction, valid", (end_of_message[:-1] + ".", "9", "Z")
    yield "fraction, last character wrong", (end_of_message[:-1] + ".", "9", "z")
    yield "request id", (f"{end_of_message}\nRequest ID: ", "a%41", "/")
    yield "resources, short and valid", (f"{end_of_message}\nResources:", "\n- a:", "")
    yield "resources, last wrong", (f"{end_of_message}\nResources:", "\n- a:", "\n- a")
    yield "resources, IPv6", (f"{end_of_message}\nResources:", "\n- a://[1:1:1:1:1:1:1::]", "")
    yield (
        "resources, IPv6 of full groups",
        (f"{end_of_message}\nResources:", "\n- a://[1111:1111:1111:1111:1111:1111:1111:1111]", "\n- a://[1111:]"),
    )
    yield "resources, then more", (f"{end_of_message}\nResources:", "\n- a:", "\nResources:")
    yield "trailing newlines", (end_of_message, "\n", "")
    yield "hyphens", (f"{end_of_message}\nResources:", "\n- ", "")
