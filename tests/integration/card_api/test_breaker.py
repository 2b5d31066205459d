"""An API that is down is left alone: nobody waits for it, and one request finds out when it is back."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from signer.adapters.card_api.circuit_breaker import BreakerLimits, CircuitBreaker, CircuitState
from signer.application.ports import Delivery, DeliveryVerdict
from signer.domain.errors import ErrorCode, NotFound, Unavailable
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import SOON, Calling, Stopwatch, deliver_something, make_client
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import token_answer

S = CircuitState
V = DeliveryVerdict
LIMITS = BreakerLimits(failures_in_a_row=3, cool_down=timedelta(seconds=10))
COOL_DOWN = timedelta(seconds=10)


class Watched:
    """A card API behind a breaker, whose clock a test moves."""

    def __init__(self, calling: Calling, breaker: CircuitBreaker, stopwatch: Stopwatch) -> None:
        self.calling = calling
        self.breaker = breaker
        self.stopwatch = stopwatch

    def state(self) -> CircuitState:
        """Where the breaker is."""
        return self.breaker.state

    async def deliver(self, timeout: timedelta = SOON) -> Delivery:
        """Deliver the signature of a new customer."""
        return await self.calling.deliver(*self.calling.customer(), timeout=timeout)

    async def open(self) -> None:
        """Have the API go down, and the breaker open, with a token at hand."""
        await self.calling.client.check()
        self.calling.fault(FaultKind.STATUS, "*", status=503)
        for _ in range(3):
            assert (await self.deliver()).verdict is V.UNKNOWN
        assert self.state() is S.OPEN
        self.calling.simulator.state.ledger.clear()

    def total_calls(self) -> int:
        """How often the API was called since then."""
        return sum(self.calling.calls(route) for route in ("sign", "challenge", "customer", "token"))


StartWatched = Any


@pytest.fixture
def start_watched(start: StartCalling) -> StartWatched:
    """Starts a simulator behind a breaker, with the settings that a test wants."""

    async def start_one(limits: BreakerLimits = LIMITS, **settings: Any) -> Watched:  # noqa: ANN401 - of many types
        stopwatch = Stopwatch()
        breaker = CircuitBreaker(limits, monotonic=stopwatch, jitter=lambda: 1.0)
        return Watched(await start(breaker=breaker, **settings), breaker, stopwatch)

    return start_one


@pytest.fixture
async def watched(start_watched: StartWatched) -> Watched:
    """A simulator behind a breaker."""
    started: Watched = await start_watched()
    return started


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        (FaultKind.STATUS, {"status": 500}),
        (FaultKind.STATUS, {"status": 503, "retry_after": 1}),
        (FaultKind.STATUS_AFTER_COMMIT, {"status": 504}),
        (FaultKind.DROP_REQUEST, {}),
        (FaultKind.DROP_REPLY, {}),
        (FaultKind.CUT_REPLY, {}),
    ],
)
async def test_what_opens_it(watched: Watched, kind: FaultKind, details: dict[str, Any]) -> None:
    """5xx, and connections without a whole answer: the third in a row."""
    await watched.calling.client.check()
    watched.calling.fault(kind, "sign", **details)
    for _ in range(3):
        assert watched.state() is S.CLOSED
        await watched.deliver()
    assert watched.state() is S.OPEN
    assert watched.calling.calls("sign") == 3


async def test_no_connection_opens_it(session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
    """Nobody listens any more."""
    server = await start_raw(token_answer())
    breaker = CircuitBreaker(LIMITS, monotonic=Stopwatch(), jitter=lambda: 1.0)
    client = make_client(server.base_url, session, tmp_path, breaker=breaker)
    await client.check()
    await server.go_away()
    for _ in range(3):
        assert await deliver_something(client) == Delivery(V.NOT_PROCESSED, None)
    assert await deliver_something(client) == Delivery(V.NOT_PROCESSED, None, COOL_DOWN)


async def test_no_answer_in_time_opens_it(start_watched: StartWatched) -> None:
    """An API that hangs is down."""
    watched = await start_watched(BreakerLimits(failures_in_a_row=1))
    await watched.calling.client.check()
    watched.calling.fault(FaultKind.LATENCY, "sign", seconds=30)
    await watched.deliver(timedelta(seconds=1.1))
    assert watched.state() is S.OPEN


async def test_too_short_a_time_says_nothing(start_watched: StartWatched) -> None:
    """What had next to no time and did not end in it is no failure of the API."""
    watched = await start_watched(BreakerLimits(failures_in_a_row=1))
    await watched.calling.client.check()
    watched.calling.fault(FaultKind.LATENCY, "sign", seconds=30)
    assert (await watched.deliver(timedelta(milliseconds=300))).verdict is V.UNKNOWN
    assert watched.state() is S.CLOSED


@pytest.mark.parametrize(
    ("kind", "details"),
    [(FaultKind.STATUS, {"status": status}) for status in (400, 401, 403, 404, 408, 409, 418, 422, 429)]
    + [(FaultKind.REDIRECT, {}), (FaultKind.GARBAGE, {}), (FaultKind.OVERSIZED, {}), (FaultKind.CONFLICT, {})],
)
async def test_what_does_not_open_it(watched: Watched, kind: FaultKind, details: dict[str, Any]) -> None:
    """Whatever the API answers below 500: it works, whoever is to blame for the answer."""
    watched.calling.fault(kind, "sign", **details)
    for _ in range(4):
        await watched.deliver()
    assert watched.state() is S.CLOSED


async def test_while_it_is_open_nothing_is_sent(watched: Watched) -> None:
    """Given an API that is down, when a hundred ask at once, then all are answered and none of them calls it."""
    await watched.open()
    watched.stopwatch.advance(4)
    client = watched.calling.client
    customer_id = str(uuid.uuid4())
    readings = [client.fetch_challenge(customer_id, timeout=SOON) for _ in range(25)]
    readings += [client.customer_status(customer_id, timeout=SOON) for _ in range(25)]
    deliveries = [watched.deliver() for _ in range(50)]
    refusals, delivered = await asyncio.gather(
        asyncio.gather(*readings, return_exceptions=True), asyncio.gather(*deliveries)
    )
    for refusal in refusals:
        assert isinstance(refusal, Unavailable)
        assert (refusal.code, refusal.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 6.0)
    assert set(delivered) == {Delivery(V.NOT_PROCESSED, None, timedelta(seconds=6))}
    assert client.suspended_for() == timedelta(seconds=6)
    assert watched.total_calls() == 0


async def test_one_call_finds_out_that_it_is_back(watched: Watched) -> None:
    """Given an API that is back, when a hundred ask at once, then one calls it, the others wait, then all may."""
    await watched.open()
    watched.calling.calm()
    watched.calling.fault(FaultKind.LATENCY, "sign", seconds=0.2)
    watched.stopwatch.advance(10)
    assert watched.calling.client.suspended_for() is None
    outcomes = await asyncio.gather(*(watched.deliver() for _ in range(100)))
    assert outcomes.count(Delivery(V.ACCEPTED, 204)) == 1
    assert outcomes.count(Delivery(V.NOT_PROCESSED, None, timedelta(seconds=1))) == 99
    assert watched.total_calls() == 1
    assert watched.state() is S.CLOSED
    watched.calling.calm()
    assert set(await asyncio.gather(*(watched.deliver() for _ in range(50)))) == {Delivery(V.ACCEPTED, 204)}


async def test_one_call_finds_out_that_it_is_not_back(watched: Watched) -> None:
    """Given an API that is still down, then that was the one call, and the next comes after twice the time."""
    await watched.open()
    watched.stopwatch.advance(10)
    await asyncio.gather(*(watched.deliver() for _ in range(100)))
    assert watched.total_calls() == 1
    assert watched.calling.client.suspended_for() == 2 * COOL_DOWN


async def test_a_404_says_that_it_is_back(watched: Watched) -> None:
    """Any answer does."""
    await watched.open()
    watched.calling.calm()
    watched.stopwatch.advance(10)
    with pytest.raises(NotFound):
        await watched.calling.client.customer_status(str(uuid.uuid4()), timeout=SOON)
    assert watched.state() is S.CLOSED


async def test_a_reader_stops_asking_when_it_opens(watched: Watched) -> None:
    """The third of his attempts opened it: there is no fourth."""
    await watched.calling.client.check()
    watched.calling.fault(FaultKind.STATUS, "challenge", status=503)
    with pytest.raises(Unavailable) as refusal:
        await watched.calling.client.fetch_challenge(str(uuid.uuid4()), timeout=SOON)
    assert refusal.value.retry_after == 10.0
    assert watched.calling.calls("challenge") == 3


async def test_a_token_finds_out_where_there_is_none(watched: Watched) -> None:
    """Given an API that was down from the beginning, then no token, no delivery; both are back after the cool-down."""
    watched.calling.fault(FaultKind.STATUS, "token", status=503)
    outcome = await watched.deliver()
    assert outcome == Delivery(V.NOT_PROCESSED, None, COOL_DOWN)
    assert watched.calling.calls("token") == 3
    with pytest.raises(Unavailable, match="not asked for a while"):
        await watched.calling.client.check()
    watched.calling.calm()
    watched.stopwatch.advance(10)
    watched.calling.monotonic.advance(10)
    assert (await watched.deliver()).verdict is V.ACCEPTED
    assert watched.state() is S.CLOSED


async def test_readiness_says_so_and_holds(watched: Watched) -> None:
    """With a token at hand the replica can sign, so it is ready; that it does not deliver now, it says."""
    assert await watched.calling.client.check() is None
    await watched.open()
    said = await watched.calling.client.check()
    assert said == "not asked for another 10 s: it failed again and again; signatures wait here"


async def test_rfc6585_4_a_429_with_retry_after_holds_for_everybody(watched: Watched) -> None:
    """Given that the API asks to be left alone, then it is, by all; and nothing has failed by that."""
    watched.calling.fault(FaultKind.STATUS, "sign", status=429, retry_after=7, times=1)
    assert await watched.deliver() == Delivery(V.NOT_PROCESSED, 429, timedelta(seconds=7))
    watched.stopwatch.advance(2)
    assert await watched.deliver() == Delivery(V.NOT_PROCESSED, None, timedelta(seconds=5))
    with pytest.raises(Unavailable, match="it asked for that") as refusal:
        await watched.calling.client.fetch_challenge(str(uuid.uuid4()), timeout=SOON)
    assert refusal.value.retry_after == 5.0
    assert watched.state() is S.CLOSED
    watched.stopwatch.advance(5)
    assert (await watched.deliver()).verdict is V.ACCEPTED


async def test_who_waits_for_a_place_learns_that_it_opened(start_watched: StartWatched) -> None:
    """Given an API that goes down under a hundred requests, then no more of them call it than had a connection."""
    watched = await start_watched(max_connections=3)
    await watched.calling.client.check()
    watched.calling.simulator.state.ledger.clear()
    watched.calling.fault(FaultKind.STATUS, "*", status=503)
    outcomes = await asyncio.gather(*(watched.deliver() for _ in range(100)))
    sent = outcomes.count(Delivery(V.UNKNOWN, 503))
    assert sent == watched.total_calls() <= 3 + 2
    assert outcomes.count(Delivery(V.NOT_PROCESSED, None, COOL_DOWN)) == 100 - sent


async def test_a_place_that_is_not_free_in_time_is_no_failure_of_the_api(start_watched: StartWatched) -> None:
    """Too many at once is our own affair: what did not get a connection was not processed, and says nothing."""
    limits = BreakerLimits(failures_in_a_row=1)
    watched = await start_watched(limits, max_connections=1, connect_timeout=timedelta(milliseconds=300))
    await watched.calling.client.check()
    watched.calling.fault(FaultKind.LATENCY, "sign", seconds=1.5, times=1)
    slow = asyncio.create_task(watched.deliver())
    await asyncio.sleep(0)
    assert await watched.deliver() == Delivery(V.NOT_PROCESSED, None)
    assert await slow == Delivery(V.ACCEPTED, 204)
    assert watched.state() is S.CLOSED
    assert watched.calling.calls("sign") == 1
