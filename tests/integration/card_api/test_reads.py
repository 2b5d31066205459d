"""Reading: every documented status, and every way in which the simulator can go wrong."""

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


Reading = Callable[..., Awaitable[str]]
both = pytest.mark.parametrize(("reading", "route"), [(read_challenge, "challenge"), (read_status, "customer")])


async def test_the_challenge_is_the_one_that_was_issued(calling: Calling) -> None:
    """The base64 text comes through as it is."""
    customer_id, submission = calling.customer()
    assert await read_challenge(calling, customer_id) == submission.parts()[0]


async def test_the_status_moves_when_the_challenge_is_signed(calling: Calling) -> None:
    """``initiating`` before, another after."""
    customer_id, submission = calling.customer()
    assert await read_status(calling, customer_id) == "initiating"
    await calling.deliver(customer_id, submission)
    assert await read_status(calling, customer_id) == "initiated"


@both
async def test_an_unknown_customer(calling: Calling, reading: Reading, route: str) -> None:
    """404 is said to the caller, and asked once."""
    with pytest.raises(NotFound) as refusal:
        await reading(calling, str(uuid.uuid4()))
    assert refusal.value.code is ErrorCode.CUSTOMER_UNKNOWN
    assert calling.calls(route) == 1


@both
@pytest.mark.parametrize("customer_id", ["", "..", "1/challenge", "a?b", "%2e%2e", "04c5851c43865bd99f8908312f8aee3a"])
async def test_only_a_uuid_becomes_a_part_of_a_path(
    calling: Calling, reading: Reading, route: str, customer_id: str
) -> None:
    """Another id reaches no URL."""
    with pytest.raises(MalformedRequest):
        await reading(calling, customer_id)
    assert calling.calls("token") + calling.calls(route) == 0


@both
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
async def test_an_outage_that_passes_is_not_seen(calling: Calling, reading: Reading, route: str, status: int) -> None:
    """5xx and 429 are asked again."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, route, status=status, times=3)
    assert await reading(calling, customer_id)
    assert calling.outcomes(route) == {str(status): 3, "200": 1}


@both
async def test_an_outage_that_stays_is_said(start: StartCalling, reading: Reading, route: str) -> None:
    """After the last attempt the caller is told."""
    calling = await start(read_attempts=3)
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, route, status=500)
    with pytest.raises(Unavailable) as refusal:
        await reading(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE
    assert calling.outcomes(route) == {"500": 3}


@both
@pytest.mark.parametrize("kind", [FaultKind.DROP_REQUEST, FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_a_lost_answer_is_asked_for_again(
    calling: Calling, reading: Reading, route: str, kind: FaultKind
) -> None:
    """A cut connection costs a repetition; aiohttp's own one comes on top."""
    customer_id, _ = calling.customer()
    calling.fault(kind, route, times=3)
    assert await reading(calling, customer_id)
    assert calling.outcomes(route)["200"] == 1


@both
@pytest.mark.parametrize("kind", [FaultKind.DROP_REQUEST, FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_answers_that_are_always_lost(calling: Calling, reading: Reading, route: str, kind: FaultKind) -> None:
    """In the end it is the API that is unavailable."""
    customer_id, _ = calling.customer()
    calling.fault(kind, route)
    with pytest.raises(Unavailable) as refusal:
        await reading(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE


@both
@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED])
async def test_an_answer_that_makes_no_sense(calling: Calling, reading: Reading, route: str, kind: FaultKind) -> None:
    """It is said as what it is, and not asked for again; the next answer is read as if nothing had been."""
    customer_id, _ = calling.customer()
    calling.fault(kind, route, times=1)
    with pytest.raises(BadUpstream) as refusal:
        await reading(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
    assert calling.calls(route) == 1
    assert await reading(calling, customer_id)


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(start: StartCalling, reading: Reading, route: str, status: int) -> None:
    """Neither on the same host nor to another: nobody else gets to see a token."""
    calling, elsewhere = await start(), await start()
    customer_id, _ = calling.customer()
    for location in ("/_sim/elsewhere", f"{elsewhere.simulator.origin}/_sim/elsewhere"):
        calling.fault(FaultKind.REDIRECT, route, status=status, location=location)
        with pytest.raises(BadUpstream, match="redirect"):
            await reading(calling, customer_id)
    assert calling.calls("elsewhere") + elsewhere.calls("elsewhere") == 0
    assert calling.calls(route) == 2


@both
async def test_a_slow_api_is_not_waited_for(calling: Calling, reading: Reading, route: str) -> None:
    """The timeout ends the call, whatever is under way."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.LATENCY, route, seconds=30)
    with pytest.raises(UpstreamTimeout) as refusal:
        await reading(calling, customer_id, timedelta(milliseconds=200))
    assert refusal.value.code is ErrorCode.CARD_API_TIMEOUT


@both
async def test_a_longer_wait_than_there_is_time_for_ends_at_once(
    calling: Calling, reading: Reading, route: str
) -> None:
    """``Retry-After`` beyond the timeout: one attempt, and the caller is told when to come back."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, route, status=429, retry_after=30)
    with pytest.raises(Unavailable) as refusal:
        await reading(calling, customer_id)
    assert refusal.value.retry_after == 30
    assert calling.outcomes(route) == {"429": 1}


async def test_a_wait_within_the_timeout_is_kept_to(calling: Calling) -> None:
    """``Retry-After: 1`` is waited for, then the answer comes."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=503, retry_after=1, times=1)
    assert await read_challenge(calling, customer_id)
    assert calling.outcomes("challenge") == {"503": 1, "200": 1}


async def test_a_forbidden_read(calling: Calling) -> None:
    """403 is no matter of a new token."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=403)
    with pytest.raises(Unavailable) as refusal:
        await read_challenge(calling, customer_id)
    assert refusal.value.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
    assert (calling.calls("challenge"), calling.calls("token")) == (1, 1)


async def test_a_bad_request(calling: Calling) -> None:
    """A 400 to a request of ours is an answer outside the contract."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.STATUS, "challenge", status=400)
    with pytest.raises(BadUpstream):
        await read_challenge(calling, customer_id)


async def test_check_needs_a_token_only(calling: Calling) -> None:
    """Readiness asks for a token, and for nothing while there is one."""
    await calling.client.check()
    calling.fault(FaultKind.STATUS, "*", status=500)
    await calling.client.check()
    assert calling.outcomes("token") == {"200": 1}


async def test_check_says_that_the_api_is_down(start: StartCalling) -> None:
    """As reading does."""
    calling = await start(read_attempts=2)
    calling.fault(FaultKind.STATUS, "token", status=500)
    with pytest.raises(Unavailable) as refusal:
        await calling.client.check()
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE
    assert calling.outcomes("token") == {"500": 2}
