"""One message before siwe: agreement, and each way to disagree."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from signer.adapters.siwe_judge import Disagreement, judge
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
def test_agreement(message: bytes) -> None:
    """Nothing is said where the two agree, with all of the optional parts and with none."""
    assert judge(message, parse_challenge(message)) is None


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
def test_disagreement_about_each_field(field: str, value: object) -> None:
    """A parser of ours that read another value would be found out, by the field's name."""
    misread: Challenge = replace(parse_challenge(WHOLE), **{field: value})  # type: ignore[arg-type]
    assert judge(WHOLE, misread) == Disagreement(field)


@pytest.mark.parametrize("missing", ["scheme", "statement", "expiration_time", "not_before", "request_id", "resources"])
def test_disagreement_about_what_is_not_there(missing: str) -> None:
    """A parser of ours that saw an optional part where there is none would be found out."""
    whole, bare = parse_challenge(WHOLE), Message().encode()
    found: dict[str, Any] = {missing: getattr(whole, missing)}
    assert judge(bare, replace(parse_challenge(bare), **found)) == Disagreement(missing)


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
def test_siwe_refuses(message: bytes) -> None:
    """A parser of ours that accepted what siwe does not would be found out."""
    assert judge(message, parse_challenge(WHOLE)) == Disagreement("refused")


@pytest.mark.parametrize(
    ("old", "new"), [(b"Chain ID: 324", b"Chain ID: 0324"), (b"Chain ID: 324", b"Chain ID: 00324")]
)
def test_siwe_would_write_it_otherwise(old: bytes, new: bytes) -> None:
    """Equal fields are not enough: what siwe would write with other bytes is a disagreement about the message."""
    message = WHOLE.replace(old, new)
    assert judge(message, replace(parse_challenge(WHOLE), message=message)) == Disagreement("message")
