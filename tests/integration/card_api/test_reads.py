"""Reads: every documented status, and every fault of the simulator."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from signer.domain.errors import BadUpstream, ErrorCode, MalformedRequest, NotFound, Unavailable, UpstreamTimeout
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import SOON, Calling
from tests.integration.card_api.conftest import StartCalling


async def read_challenge(calling: Calling, customer_id: str, timeout: timedelta = SOON) -> str:
    """``GET …/challenge``."""
    return await calling.client.fetch_challenge(customer_id, timeout=timeout)


async def read_status(calling: Calling, customer_id: str, timeout: timedelta = SOON) -> str:
    """``GET /customers/{customerId}``."""
    return await calling.client.customer_status(customer_id, timeout=timeout)


Read = Callable[..., Awaitable[str]]
both = pytest.mark.parametrize(("read", "route"), [(read_challenge, "challenge"), (read_status, "customer")])


async def test_challenge_is_the_issued_one(calling: Calling) -> None:
    """The base64 text is unchanged."""
    customer_id, submission = calling.customer()
    assert await read_challenge(calling, customer_id) == submission.parts()[0]


async def test_status_changes_when_challenge_is_signed(calling: Calling) -> None:
    """From ``initiating`` to another one."""
    customer_id, submission = calling.customer()
    assert await read_status(calling, customer_id) == "initiating"
    await calling.deliver(customer_id, submission)
    assert await read_status(calling, customer_id) == "screening"


@both
async def test_unknown_customer(calling: Calling, read: Read, route: str) -> None:
    """404 is raised, and not retried."""
    with pytest.raises(NotFound) as refusal:
        await read(calling, str(uuid.uuid4()))
    assert refusal.value.code is ErrorCode.CUSTOMER_UNKNOWN
    assert calling.calls(route) == 1


@both
@pytest.mark.parametrize("customer_id", ["", "..", "1/challenge", "a?b", "%2e%2e", "04c5851c43865bd99f8908312f8aee3a"])
async def test_customer_id_must_be_a_uuid(calling: Calling, read: Read, route: str, customer_id: str) -> None:
    """Any other id never becomes part of a URL."""
    with pytest.raises(MalformedRequest):
        await read(calling, customer_id)
    assert calling.calls("token") + calling.calls(route) == 0


@both
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
async def test_short_outage_is_retried(calling: Calling, read: Read, route: str, status: int) -> None:
    """The caller does not see 5xx and 429."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, route, status=status, times=3)
    assert await read(calling, customer_id)
    assert calling.outcomes(route) == {str(status): 3, "200": 1}


@both
async def test_lasting_outage_is_raised(start: StartCalling, read: Read, route: str) -> None:
    """After the last attempt."""
    calling = await start(read_attempts=3)
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, route, status=500)
    with pytest.raises(Unavailable) as refusal:
        await read(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE
    assert calling.outcomes(route) == {"500": 3}


@both
@pytest.mark.parametrize("kind", [FaultKind.DROP_REQUEST, FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_lost_response_is_retried(calling: Calling, read: Read, route: str, kind: FaultKind) -> None:
    """Aiohttp may repeat the request as well."""
    customer_id, _ = calling.customer()
    calling.fault(kind, route, times=3)
    assert await read(calling, customer_id)
    assert calling.outcomes(route)["200"] == 1


@both
@pytest.mark.parametrize("kind", [FaultKind.DROP_REQUEST, FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_responses_that_are_always_lost(calling: Calling, read: Read, route: str, kind: FaultKind) -> None:
    """After the last attempt the card API is unavailable."""
    customer_id, _ = calling.customer()
    calling.fault(kind, route)
    with pytest.raises(Unavailable) as refusal:
        await read(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE


@both
@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED])
async def test_unreadable_response_is_not_retried(calling: Calling, read: Read, route: str, kind: FaultKind) -> None:
    """It is an invalid response; the next read works."""
    customer_id, _ = calling.customer()
    calling.fault(kind, route, times=1)
    with pytest.raises(BadUpstream) as refusal:
        await read(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
    assert calling.calls(route) == 1
    assert await read(calling, customer_id)


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(start: StartCalling, read: Read, route: str, status: int) -> None:
    """Neither on the same host nor to another: the token is sent to the configured host only."""
    calling, other = await start(), await start()
    customer_id, _ = calling.customer()
    for location in ("/_sim/elsewhere", f"{other.simulator.origin}/_sim/elsewhere"):
        calling.fault(FaultKind.REDIRECT, route, status=status, location=location)
        with pytest.raises(BadUpstream, match="redirect"):
            await read(calling, customer_id)
    assert calling.calls("elsewhere") + other.calls("elsewhere") == 0
    assert calling.calls(route) == 2


@both
async def test_timeout_ends_read(calling: Calling, read: Read, route: str) -> None:
    """While a request is in flight."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.LATENCY, route, seconds=30)
    with pytest.raises(UpstreamTimeout) as refusal:
        await read(calling, customer_id, timedelta(milliseconds=200))
    assert refusal.value.code is ErrorCode.CARD_API_TIMEOUT


@both
async def test_retry_after_beyond_timeout_ends_read(calling: Calling, read: Read, route: str) -> None:
    """One attempt; the error tells when to retry."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, route, status=429, retry_after=30)
    with pytest.raises(Unavailable) as refusal:
        await read(calling, customer_id)
    assert refusal.value.retry_after == 30
    assert calling.outcomes(route) == {"429": 1}


async def test_retry_after_within_timeout_is_kept(calling: Calling) -> None:
    """``Retry-After: 1``, then the response."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=503, retry_after=1, times=1)
    assert await read_challenge(calling, customer_id)
    assert calling.outcomes("challenge") == {"503": 1, "200": 1}


async def test_403_is_not_retried(calling: Calling) -> None:
    """A new token would not help."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=403)
    with pytest.raises(Unavailable) as refusal:
        await read_challenge(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
    assert (calling.calls("challenge"), calling.calls("token")) == (1, 1)


async def test_400_is_an_invalid_response(calling: Calling) -> None:
    """The contract has no 400 for a read."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=400)
    with pytest.raises(BadUpstream):
        await read_challenge(calling, customer_id)


async def test_check_needs_only_a_token(calling: Calling) -> None:
    """It sends nothing while a token is valid."""
    await calling.client.check()
    calling.fault(FaultKind.STATUS, "*", status=500)
    await calling.client.check()
    assert calling.outcomes("token") == {"200": 1}


async def test_check_raises_if_card_api_is_down(start: StartCalling) -> None:
    """As a read does."""
    calling = await start(read_attempts=2)
    calling.fault(FaultKind.STATUS, "token", status=500)
    with pytest.raises(Unavailable) as refusal:
        await calling.client.check()
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE
    assert calling.outcomes("token") == {"500": 2}


async def test_404_for_a_new_customer_is_retried_until_the_customer_is_found(calling: Calling) -> None:
    """More often than other failures: the card API may find a customer late."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=404, times=6)
    challenge = await calling.client.fetch_challenge(customer_id, timeout=SOON, is_new=True)
    assert challenge == submission.parts()[0]
    assert calling.outcomes("challenge") == {"404": 6, "200": 1}


async def test_404_for_a_new_customer_until_the_timeout_is_unavailable(calling: Calling) -> None:
    """The next attempt would be too late; the caller is told to retry. Without ``is_new`` the customer is unknown."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=404, retry_after=30)
    with pytest.raises(Unavailable, match="does not find it yet") as refusal:
        await calling.client.fetch_challenge(customer_id, timeout=SOON, is_new=True)
    assert (refusal.value.code, refusal.value.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 30)
    with pytest.raises(NotFound):
        await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.outcomes("challenge") == {"404": 2}
