"""Texts that try to slow the parser down: each is accepted or refused in linear time."""

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
    """Parse a text that may be too long for ``decode_challenge``; return the code of the refusal."""
    try:
        return None if parse_challenge(message).message == message else ErrorCode.INTERNAL_ERROR
    except MalformedChallenge as refusal:
        return refusal.code


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_text_of_maximum_size(name: str) -> None:
    """A valid text is accepted; another one is refused as ``MalformedChallenge``."""
    assert SIZE - 50 < len(TEXTS[name]) <= SIZE
    encoded = base64.b64encode(TEXTS[name]).decode()
    if name in ACCEPTED:
        assert decode_challenge(encoded).message == TEXTS[name]
        return
    with pytest.raises(MalformedChallenge):
        decode_challenge(encoded)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_hostile_text_of_64_times_maximum_size(name: str) -> None:
    """The verdict is the same. A linear parser takes about 20 ms; a quadratic one exceeds the test's timeout."""
    assert verdict(LONG_TEXTS[name]) is verdict(TEXTS[name])
