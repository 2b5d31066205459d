"""The level of the canonical line of a request."""

from __future__ import annotations

import pytest

from signer.observability.writers import RequestLogLines
from signer.web.request_summary import RequestSummary
from tests.support.log_lines import captured_logs


@pytest.mark.parametrize(
    ("level", "status", "code", "caller"),
    [
        ("info", 200, None, "wallet"),
        ("info", 409, "nonce_reused", "wallet"),
        ("warning", 500, "internal_error", "wallet"),
        ("warning", 502, "card_api_challenge_refused", "wallet"),
        ("warning", 503, "store_unavailable", "wallet"),
        ("info", 503, "challenge_in_progress", "wallet"),
        ("info", 503, "overloaded", "wallet"),
        ("info", 503, "shutting_down", "wallet"),
        ("info", 501, "method_not_implemented", None),
        ("info", 503, "store_unavailable", None),
    ],
)
def test_only_a_failure_that_a_caller_met_is_a_warning(
    level: str, status: int, code: str | None, caller: str | None
) -> None:
    """A stranger cannot cause warnings, and a busy replica is no failure."""
    with captured_logs() as lines:
        summary = RequestSummary(request_id="r-1", method="POST", status=status, code=code, caller=caller)
        RequestLogLines().request_finished(summary)
    [line] = lines.of("http.request")
    assert line["level"] == level
