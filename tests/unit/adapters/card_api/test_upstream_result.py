from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from signer.adapters.card_api.upstream_result import Answer, Failure, parse_http_date, parse_retry_after
from signer.domain.errors import ErrorCode, Unavailable

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("999999999", 300),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
    ],
)
def test_rfc9110_10_2_3_retry_after(text: str, seconds: float) -> None:
    """Seconds and dates are read, dates of the past are now, and both are cut to the longest wait."""
    assert parse_retry_after(text, NOW, timedelta(minutes=5)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "٣", "1e3", "Sun, 32 Nov 2026 12:00:30 GMT", "9" * 5000])
def test_rfc9110_10_2_3_nonsense_asks_for_nothing(text: str) -> None:
    """A value that makes no sense is as good as none."""
    assert parse_retry_after(text, NOW, timedelta(minutes=5)) is None


@pytest.mark.parametrize("text", ["", "now", "Sun, 22 Nov 2026 12:00:30 -0000", "Sun, 22 Nov 20261111111 12:00:30 GMT"])
def test_rfc9110_5_6_7_nonsense_is_no_date(text: str) -> None:
    """Nor is a date without a zone."""
    assert parse_http_date(text) is None


def test_an_error_says_when_to_come_back() -> None:
    """What the API asked for reaches our own caller, in seconds."""
    error = Failure(ErrorCode.CARD_API_UNAVAILABLE, "why", retry_after=timedelta(minutes=1)).error()
    assert isinstance(error, Unavailable)
    assert error.retry_after == 60.0


def test_errors_of_one_failure_are_not_shared() -> None:
    """Each waiter raises an error of his own: tracebacks do not pile up on one."""
    failure = Failure(ErrorCode.CARD_API_UNAVAILABLE, "why")
    assert failure.error() is not failure.error()


def test_no_repr_shows_what_an_answer_holds() -> None:
    """Tokens and challenges stay out of logs, also where somebody prints the whole object."""
    assert "QUOTED" not in repr([Answer(200, b"QUOTED")])
