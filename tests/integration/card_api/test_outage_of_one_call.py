"""One call of the card API fails while the others, readiness's own among them, work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from signer.adapters.card_api.health import OWN_CALL_INTERVAL
from signer.application.outage import CONFIRMED_AFTER
from signer.domain.errors import SignerError
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import Calling


async def deliver(calling: Calling) -> None:
    """Deliver a signature."""
    await calling.deliver(*calling.customer())


async def read_challenge(calling: Calling) -> None:
    """Read a challenge, with little time."""
    with suppress(SignerError):
        await calling.client.fetch_challenge(calling.customer()[0], timeout=timedelta(seconds=0.3))


async def renew_token(calling: Calling) -> None:
    """Renew the token; the current one is valid meanwhile."""
    await calling.client._tokens.current(asyncio.get_running_loop().time())
    await end_renewal(calling)


async def end_renewal(calling: Calling) -> None:
    """Wait for the renewal that runs in the background, if there is one."""
    if (fetching := calling.client._tokens._fetching) is not None:
        await asyncio.wait({fetching})


@pytest.mark.parametrize(
    ("route", "call", "fault", "cause"),
    [
        ("sign", deliver, {"kind": FaultKind.STATUS, "status": 500}, "server_error"),
        ("challenge", read_challenge, {"kind": FaultKind.LATENCY, "seconds": 30}, "timeout"),
        ("token", renew_token, {"kind": FaultKind.STATUS, "status": 500}, "server_error"),
    ],
)
async def test_outage_of_one_call_is_named_although_the_call_of_readiness_works(
    calling: Calling, route: str, call: Callable[[Calling], Awaitable[None]], fault: dict[str, Any], cause: str
) -> None:
    """It ends when the call has not failed for a while."""
    outage = calling.client.outage
    outage._monotonic = calling.monotonic
    assert await calling.client.check() is None
    if route == "token":
        assert calling.client._tokens._token is not None
        calling.monotonic.seconds = calling.client._tokens._token.renew_at
    calling.fault(route=route, **fault)
    for _ in range(int(CONFIRMED_AFTER) + 1):
        await call(calling)
        calling.monotonic.advance(1)
        await calling.client.check()
    assert (outage.is_down, outage.cause) == (True, cause)
    assert set(calling.outcomes("customer")) == {"404"}
    calling.calm()
    await end_renewal(calling)
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    await calling.client.check()
    assert not outage.is_failing


async def test_call_that_failed_once_is_no_outage(calling: Calling) -> None:
    """The call of readiness ends it without a report."""
    outage = calling.client.outage
    outage._monotonic = calling.monotonic
    calling.fault(FaultKind.STATUS, "sign", status=500)
    await deliver(calling)
    for _ in range(int(OWN_CALL_INTERVAL.total_seconds())):
        assert (outage.is_failing, outage.is_down) == (True, False)
        calling.monotonic.advance(1)
        assert await calling.client.check() is None
    assert not outage.is_failing
