"""Texts that are meant to keep a parser busy: read or refused in order, and in linear time."""

from __future__ import annotations

import base64

import pytest

from benchmarks.hostile_texts import SIZE, hostile_texts
from signer.domain.challenge import decode_challenge, parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge

TEXTS = hostile_texts()
LONG_TEXTS = hostile_texts(64 * SIZE)
ACCEPTED = {
    "domain like a scheme",
    "domain of userinfos",
    "domain of percents, valid",
    "statement, valid",
    "statement of field names",
    "URI path, valid",
    "fraction, valid",
    "resources, short and valid",
    "resources, IPv6",
}


def verdict(message: bytes) -> ErrorCode | None:
    """Parse what is too long for ``decode_challenge``; gives the code of the refusal."""
    try:
        return None if parse_challenge(message).message == message else ErrorCode.INTERNAL_ERROR
    except MalformedChallenge as refusal:
        return refusal.code


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_text_at_the_cap(name: str) -> None:
    """The longest text that the cap lets in is accepted where it is valid, and else refused with a typed error."""
    assert SIZE - 50 < len(TEXTS[name]) <= SIZE
    encoded = base64.b64encode(TEXTS[name]).decode()
    if name in ACCEPTED:
        assert decode_challenge(encoded).message == TEXTS[name]
        return
    with pytest.raises(MalformedChallenge):
        decode_challenge(encoded)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_hostile_text_beyond_the_cap_ends(name: str) -> None:
    """64 times as long the verdict is the same, and there is one.

    A linear parser needs some 20 ms for it; one that tries every place from every place would not come to an end here
    within the test's time.
    """
    assert verdict(LONG_TEXTS[name]) is verdict(TEXTS[name])
