from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from signer.adapters.card_api.http_transport import parse_retry_after
from signer.adapters.card_api.responses import delivery_failure
from signer.adapters.card_api.results import Failure, UpstreamResponse
from signer.adapters.card_api.unusable_responses import failure_for
from signer.adapters.card_api.upstream_clock import parse_http_date
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
    """Seconds and dates are parsed, a date in the past is zero, and both are cut to the longest wait."""
    assert parse_retry_after(text, NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "٣", "1e3", "Sun, 32 Nov 2026 12:00:30 GMT", "9" * 5000])
def test_rfc9110_10_2_3_malformed_retry_after_is_ignored(text: str) -> None:
    """As if the field were absent."""
    assert parse_retry_after(text, NOW) is None


@pytest.mark.parametrize("text", ["", "now", "Sun, 22 Nov 2026 12:00:30 -0000", "Sun, 22 Nov 20261111111 12:00:30 GMT"])
def test_rfc9110_5_6_7_malformed_date_is_ignored(text: str) -> None:
    """So is a date without a zone."""
    assert parse_http_date(text) is None


def test_error_carries_retry_after() -> None:
    """The pause that the card API asked for reaches our caller, in seconds."""
    failure = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", retry_after=timedelta(minutes=1))
    error = failure.error()
    assert isinstance(error, Unavailable)
    assert error.retry_after == 60.0


def test_each_error_of_one_failure_is_new() -> None:
    """Each waiting caller raises its own: tracebacks do not accumulate."""
    failure = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why")
    assert failure.error() is not failure.error()


def test_repr_hides_body() -> None:
    """Tokens and challenges stay out of logs."""
    assert "QUOTED" not in repr([UpstreamResponse(200, b"QUOTED")])


@pytest.mark.parametrize(
    ("cause", "result"),
    [
        (None, UpstreamResponse(204, b"")),
        (None, UpstreamResponse(409, b"")),
        ("credentials_refused", UpstreamResponse(401, b"")),
        ("signature_refused", UpstreamResponse(400, b"text")),
        ("rate_limited", UpstreamResponse(429, b"")),
        ("server_error", UpstreamResponse(503, b"")),
        ("server_error", UpstreamResponse(425, b"")),
        ("invalid_response", UpstreamResponse(303, b"")),
        ("invalid_response", UpstreamResponse(404, b"<html>Not Found</html>")),
        (None, UpstreamResponse(404, b'{"code": "customer_not_found"}')),
        (None, UpstreamResponse(404, b"")),
        ("invalid_response", UpstreamResponse(200, b"<html>")),
        ("tls", Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="", cause="tls")),
    ],
)
def test_delivery_that_shows_that_the_card_api_does_not_work_has_its_cause(
    cause: str | None, result: UpstreamResponse | Failure
) -> None:
    """A response of the contract, whatever it says about the signature, shows that it works."""
    failure = delivery_failure(result)
    assert (None if failure is None else failure.cause) == cause


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<html>Not Found</html>", "is not JSON"),
        (b"404 page not found", "is not JSON"),
        (b'{"code": "no_route"}', "has a status that its contract does not have there"),
    ],
)
def test_404_to_a_call_without_customer_says_what_is_wrong_with_it(body: bytes, what: str) -> None:
    """And then what to check."""
    failure = failure_for(UpstreamResponse(404, body), "GET customers")
    assert failure.detail == (
        f"The card API's response to GET customers (status 404) {what}; check card_api.base_url and the proxies "
        "between; else ask the card API's operator."
    )


@pytest.mark.parametrize(
    ("body", "skew", "advice"),
    [
        (b"invalid required signature", None, "compare the clocks, then check card_api.signing_key_id, then the key"),
        (b"invalid required signature", timedelta(seconds=2), "the clocks agree, so check card_api.signing_key_id"),
        (b"invalid required signature", timedelta(seconds=61), "its clock is 61 s ahead of ours: set the clocks"),
        (b"unknown key id", timedelta(seconds=61), "it names the key id: set card_api.signing_key_id"),
        (b"created lies in the future", None, "it names the time of the signature: set the clocks"),
        (b"missing Content-Digest", None, "it names the Content-Digest: check card_api.digest_algorithm"),
        (b"Idempotency-Key is missing", None, "it names the Idempotency-Key: report this"),
        (b"missing component @path", None, "it names what the signature covers: check card_api.covered_components"),
        (b"<html>digest, keyid</html>", None, "compare the clocks, then check card_api.signing_key_id"),
    ],
)
def test_refused_request_signature_says_what_to_check(body: bytes, skew: timedelta | None, advice: str) -> None:
    """One thing if the response or the clocks show it, else everything in order."""
    failure = delivery_failure(UpstreamResponse(400, body, skew=skew))
    assert failure is not None
    assert f"(status 400 on POST challenge/sign); {advice}" in failure.detail
