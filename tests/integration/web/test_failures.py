from __future__ import annotations

import pytest

from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError, Unavailable, UpstreamTimeout
from tests.integration.web.site import CUSTOMER, PROBLEM, Site

DETAIL = "The card API failed."
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
async def test_failed_fetch_of_a_challenge_has_the_card_apis_error(
    site: Site, failure: SignerError, status: int, retry_after: str | None
) -> None:
    """The class of the error decides the status; temporary errors have ``Retry-After``."""
    site.card_api.failures.append(failure)
    response = await site.ask()
    problem = await response.json()
    assert (response.status, response.content_type) == (status, PROBLEM)
    assert (problem["code"], problem["detail"]) == (failure.code, DETAIL)
    assert response.headers.get("Retry-After") == retry_after


async def test_unavailable_store_is_503_and_nothing_is_signed(site: Site) -> None:
    """Reading a record is 503, too."""
    site.store.shelf.is_down = True
    signing, reading = await site.ask(site.challenge()), await site.get("/v1/challenges/" + "00" * 17)
    for response in (signing, reading):
        assert (response.status, (await response.json())["code"]) == (503, "store_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
    assert site.key.signed == 0


@pytest.mark.parametrize("code", [ErrorCode.KEY_BACKEND_UNAVAILABLE, ErrorCode.KEY_SIGNATURE_INVALID])
async def test_failed_key_backend_is_503(site: Site, code: ErrorCode) -> None:
    """The nonce stays reserved for the message, which is signed once the backend works again."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.key.failure = Unavailable(code, "The backend failed.")
    response = await site.ask(challenge)
    assert (response.status, (await response.json())["code"]) == (503, code)
    site.key.failure = None
    assert (await site.ask(challenge)).status == 200


@pytest.mark.parametrize("code", [ErrorCode.STARTING, ErrorCode.SHUTTING_DOWN])
async def test_closed_admission_is_503(site: Site, code: ErrorCode) -> None:
    """A replica that starts or stops refuses new work, but records can be read."""
    site.admission.close(code, "Not now.", retry_after=1.5)
    response = await site.ask(site.challenge())
    assert (response.status, (await response.json())["code"], response.headers["Retry-After"]) == (503, code, "2")
    assert (await site.get("/v1/challenges/" + "00" * 17)).status == 404


async def test_unexpected_error_is_500_without_details(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response shows nothing of the error; the log has its type and frames under the request id."""

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


async def test_unexpected_timeout_is_500(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiohttp itself would respond 504 in plain text to a ``TimeoutError``."""

    async def get(challenge_id: str) -> None:
        raise TimeoutError

    monkeypatch.setattr(site.store, "get", get)
    response = await site.get("/v1/challenges/" + "00" * 17)
    assert (response.status, (await response.json())["code"]) == (500, "internal_error")
