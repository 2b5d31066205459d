from __future__ import annotations

import pytest

from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError, Unavailable, UpstreamTimeout
from tests.integration.web.site import CUSTOMER, PROBLEM, Site

DETAIL = "The card API did something."
SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (NotFound(ErrorCode.CUSTOMER_UNKNOWN, DETAIL, field="customerId"), 404, None),
        (BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, DETAIL), 502, "5"),
        (Unavailable(ErrorCode.CARD_API_UNAVAILABLE, DETAIL, retry_after=2.3), 503, "3"),
        (Unavailable(ErrorCode.CARD_API_CREDENTIALS_REFUSED, DETAIL, retry_after=30), 503, "30"),
        (UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, DETAIL, retry_after=0), 504, "1"),
    ],
)
async def test_a_challenge_that_cannot_be_fetched_is_told_with_the_card_apis_failure(
    site: Site,
    failure: SignerError,
    status: int,
    retry_after: str | None,
) -> None:
    """The family gives the status, and those that pass say when to come back."""
    site.card_api.failures.append(failure)
    response = await site.ask()
    problem = await response.json()
    assert (response.status, response.content_type) == (status, PROBLEM)
    assert (problem["code"], problem["detail"]) == (failure.code, DETAIL)
    assert response.headers.get("Retry-After") == retry_after


async def test_a_store_that_is_down_is_503_and_nothing_is_signed(site: Site) -> None:
    """Also for reading a record."""
    site.store.shelf.is_down = True
    asked, looked = await site.ask(site.challenge()), await site.get("/v1/challenges/" + "00" * 17)
    for response in (asked, looked):
        assert (response.status, (await response.json())["code"]) == (503, "store_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
    assert site.key.signed == 0


@pytest.mark.parametrize("code", [ErrorCode.KEY_BACKEND_UNAVAILABLE, ErrorCode.KEY_SIGNATURE_INVALID])
async def test_a_key_backend_that_fails_is_503(site: Site, code: ErrorCode) -> None:
    """The nonce waits for the same message: once the backend is back it is signed."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.key.failure = Unavailable(code, "The backend failed.")
    response = await site.ask(challenge)
    assert (response.status, (await response.json())["code"]) == (503, code)
    site.key.failure = None
    assert (await site.ask(challenge)).status == 200


@pytest.mark.parametrize("code", [ErrorCode.STARTING, ErrorCode.SHUTTING_DOWN])
async def test_a_closed_gate_is_503(site: Site, code: ErrorCode) -> None:
    """A replica that starts or stops takes no work; records can be read."""
    site.gate.close(code, "Not now.", retry_after=1.5)
    response = await site.ask(site.challenge())
    assert (response.status, (await response.json())["code"], response.headers["Retry-After"]) == (503, code, "2")
    assert (await site.get("/v1/challenges/" + "00" * 17)).status == 404


async def test_what_nobody_expected_is_500_and_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer holds no word of the error; the log has its type and its frames under the same request id."""

    async def get(challenge_id: str) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(site.store, "get", get)
    site.secrets.add(SECRET)
    response = await site.get("/v1/challenges/" + "00" * 17, **{"X-Request-Id": "r-500"})
    problem = await response.json()
    assert (response.status, problem["code"], response.content_type) == (500, "internal_error", PROBLEM)
    assert SECRET not in str(problem)
    assert "ZeroDivision" not in str(problem)
    (line,) = site.log.of("http.unexpected_error")
    assert (line["error"], line["request_id"], line["caller"]) == ("builtins.ZeroDivisionError", "r-500", "wallet")
    assert line["frames"][-1].split(":")[1] == "get"
    (canonical,) = site.log.of("http.request")
    assert (canonical["status"], canonical["code"]) == (500, "internal_error")


async def test_a_timeout_that_nobody_expected_is_500_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, aiohttp would answer 504 in plain text for any ``TimeoutError`` that reaches it."""

    async def get(challenge_id: str) -> None:
        raise TimeoutError

    monkeypatch.setattr(site.store, "get", get)
    response = await site.get("/v1/challenges/" + "00" * 17)
    assert (response.status, (await response.json())["code"]) == (500, "internal_error")
