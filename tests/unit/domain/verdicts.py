"""Helpers: parse a message that must be accepted, also by siwe, or one that must be refused."""

from __future__ import annotations

import pytest

from signer.adapters.siwe_judge import find_disagreement
from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge
from tests.support.messages import Message


def accepted(message: Message) -> Challenge:
    """Parse a message that our parser and siwe must accept alike."""
    challenge = parse_challenge(message.encode())
    assert find_disagreement(message.encode(), challenge) is None
    return challenge


def refused(message: Message) -> tuple[ErrorCode, str | None]:
    """Parse a message that must be refused; return the code and the field of the challenge."""
    with pytest.raises(MalformedChallenge) as refusal:
        parse_challenge(message.encode())
    assert refusal.value.detail
    path, _, field = (refusal.value.field or "").partition(".")
    assert path == "challenge"
    return refusal.value.code, field
