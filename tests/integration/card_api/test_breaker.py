"""The circuit breaker around a card API that fails: calls end at once, and one probe finds out that it works again."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from signer.adapters.card_api.circuit_breaker import CircuitBreaker
from signer.application.backoff import Backoff
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, NotFound, Unavailable
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import SOON, Calling, Stopwatch, deliver_something, make_client
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import http, token_response

V = DeliveryVerdict
COOL_DOWN = timedelta(seconds=10)
BACKOFF = Backoff(first_pause=COOL_DOWN, longest_pause=timedelta(seconds=30))


def make_breaker(stopwatch: Stopwatch, failures_to_open: int = 3) -> CircuitBreaker:
    """Return a breaker without jitter."""
    return CircuitBreaker(monotonic=stopwatch, failures_to_open=failures_to_open, cool_down=BACKOFF, jitter=lambda: 1.0)


class Bench:
    """A simulated card API behind a breaker whose clock a test moves."""

    def __init__(self, calling: Calling, breaker: CircuitBreaker, stopwatch: Stopwatch) -> None:
        self.calling = calling
        self.breaker = breaker
        self.stopwatch = stopwatch

    def is_closed(self) -> bool:
        """Return whether the breaker has not opened, or has closed again."""
        return not self.breaker._openings

    async def deliver(self, timeout: timedelta = SOON) -> DeliveryResult:
        """Deliver the signature of a new customer."""
        return await self.calling.deliver(*self.calling.customer(), timeout=timeout)

    async def open(self) -> None:
        """Fetch a token, then make the card API fail until the breaker opens."""
        await self.calling.client.check()
        self.calling.fault(FaultKind.STATUS, "*", status=503)
        for _ in range(3):
            assert (await self.deliver()).verdict is V.UNKNOWN
        assert not self.is_closed()
        self.calling.simulator.state.ledger.clear()

    def total_calls(self) -> int:
        """Return how often the card API was called since then."""
        return sum(self.calling.calls(route) for route in ("sign", "challenge", "customer", "token"))


StartBench = Any


@pytest.fixture
def start_bench(start: StartCalling) -> StartBench:
    """Return a function that starts a simulator behind a breaker, with a test's limits."""

    async def start_one(failures_to_open: int = 3, **limits: Any) -> Bench:  # noqa: ANN401 - of many types
        stopwatch = Stopwatch()
        breaker = make_breaker(stopwatch, failures_to_open)
        return Bench(await start(breaker=breaker, **limits), breaker, stopwatch)

    return start_one


@pytest.fixture
async def bench(start_bench: StartBench) -> Bench:
    """A simulator behind a breaker."""
    started: Bench = await start_bench()
    return started


async def test_5xx_that_is_too_long_opens_breaker(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
) -> None:
    """A gateway's page: its status counts, although the page is not read."""
    server = await start_raw(token_response(), http(502, b"<html>" + b"x" * 70_000))
    breaker = make_breaker(Stopwatch())
    client = make_client(server.base_url, session, tmp_path, breaker=breaker)
    await client.authenticate(timeout=SOON)
    for _ in range(3):
        await deliver_something(client)
    assert breaker._openings == 1


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
async def test_third_failure_opens_breaker(bench: Bench, kind: FaultKind, details: dict[str, Any]) -> None:
    """5xx, and connections without a complete response."""
    await bench.calling.client.check()
    bench.calling.fault(kind, "sign", **details)
    for _ in range(3):
        assert bench.is_closed()
        await bench.deliver()
    assert not bench.is_closed()
    assert bench.calling.calls("sign") == 3


async def test_refused_connections_open_breaker(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
) -> None:
    """The server has stopped listening."""
    server = await start_raw(token_response())
    breaker = make_breaker(Stopwatch())
    client = make_client(server.base_url, session, tmp_path, breaker=breaker)
    await client.check()
    await server.stop()
    for _ in range(3):
        assert await deliver_something(client) == DeliveryResult(V.NOT_PROCESSED, None)
    assert await deliver_something(client) == DeliveryResult(V.NOT_PROCESSED, None, COOL_DOWN)


async def test_timeout_opens_breaker(start_bench: StartBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card API that does not respond is down, if it had a fair time: a second, which is shortened here."""
    monkeypatch.setattr("signer.adapters.card_api.http_transport._FAIR_TIME", 0.1)
    bench = await start_bench(failures_to_open=1)
    await bench.calling.client.check()
    bench.calling.fault(FaultKind.LATENCY, "sign", seconds=30)
    await bench.deliver(timedelta(seconds=1.1))
    assert not bench.is_closed()


async def test_timeout_of_very_short_request_is_ignored(start_bench: StartBench) -> None:
    """A request with 300 ms says nothing about the card API."""
    bench = await start_bench(failures_to_open=1)
    await bench.calling.client.check()
    bench.calling.fault(FaultKind.LATENCY, "sign", seconds=30)
    assert (await bench.deliver(timedelta(milliseconds=300))).verdict is V.UNKNOWN
    assert bench.is_closed()


@pytest.mark.parametrize(
    ("kind", "details"),
    [(FaultKind.STATUS, {"status": status}) for status in (400, 401, 403, 404, 408, 409, 418, 422, 429)]
    + [(FaultKind.REDIRECT, {}), (FaultKind.GARBAGE, {}), (FaultKind.OVERSIZED, {}), (FaultKind.CONFLICT, {})],
)
async def test_response_below_500_does_not_open_breaker(bench: Bench, kind: FaultKind, details: dict[str, Any]) -> None:
    """The card API works, whatever is wrong with the response."""
    bench.calling.fault(kind, "sign", **details)
    for _ in range(4):
        await bench.deliver()
    assert bench.is_closed()


async def test_open_breaker_sends_nothing(bench: Bench) -> None:
    """A hundred calls at once end with the time after which to retry, and none is sent."""
    await bench.open()
    bench.stopwatch.advance(4)
    client = bench.calling.client
    customer_id = str(uuid.uuid4())
    readings = [client.fetch_challenge(customer_id, timeout=SOON) for _ in range(25)]
    readings += [client.customer_status(customer_id, timeout=SOON) for _ in range(25)]
    deliveries = [bench.deliver() for _ in range(50)]
    refusals, delivered = await asyncio.gather(
        asyncio.gather(*readings, return_exceptions=True), asyncio.gather(*deliveries)
    )
    for refusal in refusals:
        assert isinstance(refusal, Unavailable)
        assert (refusal.code, refusal.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 6.0)
    assert set(delivered) == {DeliveryResult(V.NOT_PROCESSED, None, timedelta(seconds=6))}
    assert client.suspended_for() == timedelta(seconds=6)
    assert bench.total_calls() == 0


async def test_one_probe_closes_breaker(bench: Bench) -> None:
    """Of a hundred calls at once after the cool-down, one is sent; after it all are."""
    await bench.open()
    bench.calling.calm()
    bench.calling.fault(FaultKind.LATENCY, "sign", seconds=0.2)
    bench.stopwatch.advance(10)
    assert bench.calling.client.suspended_for() is None
    outcomes = await asyncio.gather(*(bench.deliver() for _ in range(100)))
    assert outcomes.count(DeliveryResult(V.ACCEPTED, 204)) == 1
    assert outcomes.count(DeliveryResult(V.NOT_PROCESSED, None, timedelta(seconds=1))) == 99
    assert bench.total_calls() == 1
    assert bench.is_closed()
    bench.calling.calm()
    assert set(await asyncio.gather(*(bench.deliver() for _ in range(50)))) == {DeliveryResult(V.ACCEPTED, 204)}


async def test_failed_probe_doubles_cool_down(bench: Bench) -> None:
    """It was the only call, and the next one is admitted after twice the time."""
    await bench.open()
    bench.stopwatch.advance(10)
    await asyncio.gather(*(bench.deliver() for _ in range(100)))
    assert bench.total_calls() == 1
    assert bench.calling.client.suspended_for() == 2 * COOL_DOWN


async def test_probe_with_404_closes_breaker(bench: Bench) -> None:
    """Any response below 500 does."""
    await bench.open()
    bench.calling.calm()
    bench.stopwatch.advance(10)
    with pytest.raises(NotFound):
        await bench.calling.client.customer_status(str(uuid.uuid4()), timeout=SOON)
    assert bench.is_closed()


async def test_read_retries_end_when_breaker_opens(bench: Bench) -> None:
    """The third attempt opened it: there is no fourth."""
    await bench.calling.client.check()
    bench.calling.fault(FaultKind.STATUS, "challenge", status=503)
    with pytest.raises(Unavailable) as refusal:
        await bench.calling.client.fetch_challenge(str(uuid.uuid4()), timeout=SOON)
    assert refusal.value.retry_after == 10.0
    assert bench.calling.calls("challenge") == 3


async def test_token_request_is_the_probe_without_a_token(bench: Bench) -> None:
    """A card API that is down from the start issues no token; deliveries work after the cool-down."""
    bench.calling.fault(FaultKind.STATUS, "token", status=503)
    outcome = await bench.deliver()
    assert outcome == DeliveryResult(V.NOT_PROCESSED, None, COOL_DOWN)
    assert bench.calling.calls("token") == 3
    with pytest.raises(Unavailable, match="after repeated card API failures"):
        await bench.calling.client.check()
    bench.calling.calm()
    bench.stopwatch.advance(10)
    bench.calling.monotonic.advance(10)
    assert (await bench.deliver()).verdict is V.ACCEPTED
    assert bench.is_closed()


async def test_breaker_that_token_requests_opened_is_an_outage(bench: Bench) -> None:
    """Each failed attempt to fetch a token is noted, so that the outage is named without any other call."""
    bench.calling.fault(FaultKind.STATUS, "token", status=503)
    with pytest.raises(Unavailable, match=r"^card_api_unavailable: server_error: .*POST auth/token.* Paused after"):
        await bench.calling.client.check()
    outage = bench.calling.client.outage
    assert (outage.is_down, outage.cause) == (True, "server_error")
    assert outage.reason == "The card API is unavailable (status 503 on POST auth/token); ask its operator."


async def test_check_warns_while_breaker_is_open(bench: Bench) -> None:
    """With a valid token the replica can sign, so it is ready; the warning says why it does not deliver now."""
    assert await bench.calling.client.check() is None
    await bench.open()
    warning = await bench.calling.client.check()
    assert warning == (
        "server_error: The card API is unavailable (status 503 on POST challenge/sign); ask its operator. "
        "Paused after repeated card API failures; retry after 10 s; signatures wait for delivery"
    )


async def test_rfc6585_4_retry_after_of_429_suspends_all_calls(bench: Bench) -> None:
    """Until then nothing is sent; the breaker stays closed."""
    bench.calling.fault(FaultKind.STATUS, "sign", status=429, retry_after=7, times=1)
    assert await bench.deliver() == DeliveryResult(V.NOT_PROCESSED, 429, timedelta(seconds=7))
    bench.stopwatch.advance(2)
    assert await bench.deliver() == DeliveryResult(V.NOT_PROCESSED, None, timedelta(seconds=5))
    with pytest.raises(Unavailable, match="at the card API's request") as refusal:
        await bench.calling.client.fetch_challenge(str(uuid.uuid4()), timeout=SOON)
    assert refusal.value.retry_after == 5.0
    assert bench.is_closed()
    bench.stopwatch.advance(5)
    assert (await bench.deliver()).verdict is V.ACCEPTED


async def test_calls_waiting_for_connection_see_open_breaker(start_bench: StartBench) -> None:
    """Of a hundred calls to a card API that goes down, only those with a connection are sent."""
    bench = await start_bench(max_connections=3)
    await bench.calling.client.check()
    bench.calling.simulator.state.ledger.clear()
    bench.calling.fault(FaultKind.STATUS, "*", status=503)
    outcomes = await asyncio.gather(*(bench.deliver() for _ in range(100)))
    sent = outcomes.count(DeliveryResult(V.UNKNOWN, 503))
    assert sent == bench.total_calls() <= 3 + 2
    assert outcomes.count(DeliveryResult(V.NOT_PROCESSED, None, COOL_DOWN)) == 100 - sent


async def test_no_free_connection_is_no_failure_of_card_api(start_bench: StartBench) -> None:
    """The delivery was not processed, and the breaker stays closed."""
    bench = await start_bench(1, max_connections=1, connect_timeout=timedelta(milliseconds=300))
    await bench.calling.client.check()
    bench.calling.fault(FaultKind.LATENCY, "sign", seconds=1.5, times=1)
    slow = asyncio.create_task(bench.deliver())
    await asyncio.sleep(0)
    assert await bench.deliver() == DeliveryResult(V.NOT_PROCESSED, None)
    assert await slow == DeliveryResult(V.ACCEPTED, 204)
    assert bench.is_closed()
    assert bench.calling.calls("sign") == 1
