"""The error codes, the error classes and their texts."""

from __future__ import annotations

import re

import pytest

from signer.domain.errors import (
    BadUpstream,
    ChallengeRefused,
    Conflict,
    ErrorCode,
    MalformedChallenge,
    MalformedRequest,
    NotFound,
    RefusedByPolicy,
    SignerError,
    Unauthenticated,
    Unavailable,
    UpstreamTimeout,
)

FAMILIES = [
    MalformedRequest,
    MalformedChallenge,
    RefusedByPolicy,
    Unauthenticated,
    NotFound,
    Conflict,
    Unavailable,
    BadUpstream,
    UpstreamTimeout,
]


def test_code_equals_name_in_snake_case() -> None:
    """Codes are safe for JSON, log lines and metrics."""
    for code in ErrorCode:
        assert code.value == code.name.lower()
        assert re.fullmatch(r"[a-z][a-z0-9_]+[a-z0-9]", code.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_error_has_code_detail_and_field(family: type[SignerError]) -> None:
    """The text of the exception contains the code and the detail."""
    error = family(ErrorCode.NONCE_MALFORMED, "Say what to do.", field="nonce")
    assert (error.code, error.detail, error.field) == (ErrorCode.NONCE_MALFORMED, "Say what to do.", "nonce")
    assert str(error) == "nonce_malformed: Say what to do."
    assert family(ErrorCode.NONCE_MALFORMED, "").field is None


def test_retry_after_is_one_second_by_default() -> None:
    """The code that raises the error can set another value."""
    assert Unavailable(ErrorCode.STORE_UNAVAILABLE, "").retry_after == 1.0
    assert UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "", retry_after=2.5).retry_after == 2.5


def test_challenge_refused_is_the_card_apis_error_with_the_rules_code() -> None:
    """The caller gets its own code, and the rule's as the reason."""
    error = ChallengeRefused(ErrorCode.DOMAIN_NOT_ALLOWED, "Say what to do.")
    assert isinstance(error, BadUpstream)
    assert (error.code, error.reason) == (ErrorCode.CARD_API_CHALLENGE_REFUSED, ErrorCode.DOMAIN_NOT_ALLOWED)
