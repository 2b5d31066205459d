"""One message parsed by siwe: agreement, and each kind of disagreement."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from signer.adapters.siwe_judge import find_disagreement
from signer.domain.challenge import Challenge, parse_challenge
from tests.support.messages import Message

WHOLE = Message(
    scheme="https",
    statement="Sign in.",
    issued_at="2026-11-22T12:00:00.123456789-05:30",
    expiration_time="2026-11-22T13:00:00Z",
    not_before="2026-11-22T12:00:00+00:00",
    request_id="a",
    resources=("a:", "b:"),
).encode()


@pytest.mark.parametrize("message", [WHOLE, Message().encode()])
def test_no_disagreement_about_valid_messages(message: bytes) -> None:
    """The parsers agree on a message with all optional fields and on one with none."""
    assert find_disagreement(message, parse_challenge(message)) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheme", None),
        ("scheme", "http"),
        ("domain", "evil.example"),
        ("address", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"),
        ("statement", None),
        ("statement", "Sign out."),
        ("uri", "https://evil.example"),
        ("chain_id", 1),
        ("nonce", "anothernonce"),
        ("issued_at", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("expiration_time", None),
        ("expiration_time", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("not_before", None),
        ("not_before", datetime(2026, 11, 22, 13, tzinfo=UTC)),
        ("request_id", None),
        ("request_id", "b"),
        ("resources", ()),
        ("resources", ("b:", "a:")),
        ("message", WHOLE + b" "),
    ],
)
def test_disagreement_names_field_with_other_value(field: str, value: object) -> None:
    """If our parser returned another value, the field's name is returned."""
    misread: Challenge = replace(parse_challenge(WHOLE), **{field: value})  # type: ignore[arg-type]
    assert find_disagreement(WHOLE, misread) == field


@pytest.mark.parametrize("missing", ["scheme", "statement", "expiration_time", "not_before", "request_id", "resources"])
def test_disagreement_names_field_that_message_lacks(missing: str) -> None:
    """If our parser returned an optional field that the message does not have, its name is returned."""
    whole, bare = parse_challenge(WHOLE), Message().encode()
    misread: Challenge = replace(parse_challenge(bare), **{missing: getattr(whole, missing)})
    assert find_disagreement(bare, misread) == missing


@pytest.mark.parametrize(
    "message",
    [
        WHOLE + b"\n",
        b" " + WHOLE,
        WHOLE.replace(b"Sign in.", b"`"),
        WHOLE.replace(b"Sign in.", "é".encode()),
        WHOLE.replace(b"Version: 1", b"Version: 2"),
        WHOLE.replace(b"2026-11-22T13:00:00Z", b"2026-11-31T13:00:00Z"),
        b"",
    ],
)
def test_disagreement_is_refused_if_siwe_rejects_message(message: bytes) -> None:
    """If our parser accepted what siwe rejects, ``refused`` is returned."""
    assert find_disagreement(message, parse_challenge(WHOLE)) == "refused"


@pytest.mark.parametrize(
    ("old", "new"), [(b"Chain ID: 324", b"Chain ID: 0324"), (b"Chain ID: 324", b"Chain ID: 00324")]
)
def test_disagreement_is_message_if_siwe_writes_other_bytes(old: bytes, new: bytes) -> None:
    """Equal fields are not enough: siwe must also write the message with the same bytes."""
    message = WHOLE.replace(old, new)
    assert find_disagreement(message, replace(parse_challenge(WHOLE), message=message)) == "message"
