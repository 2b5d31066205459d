from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.single_flight import SingleFlight, StillRunning

LONG_TIMEOUT = timedelta(seconds=20)


async def test_second_request_joins_running_work_and_its_timeout_does_not_stop_it() -> None:
    """The work is started once, and the first request gets its result."""
    started: list[str] = []
    may_end = asyncio.Event()

    async def work(key: str) -> str:
        started.append(key)
        await may_end.wait()
        return key

    single_flight = SingleFlight(work, max_concurrent=1)
    first = asyncio.ensure_future(single_flight.run("a", within=LONG_TIMEOUT))
    await asyncio.sleep(0)
    with pytest.raises(StillRunning):
        await single_flight.run("a", within=timedelta(0))
    may_end.set()
    assert await first == "a"
    assert started == ["a"]


async def test_key_is_free_as_soon_as_its_work_has_failed() -> None:
    """A request that runs right behind the last step of failing work starts new work."""
    later: list[asyncio.Task[str]] = []

    async def work(key: str) -> str:
        if later:
            return key
        later.append(asyncio.create_task(single_flight.run("a", within=LONG_TIMEOUT)))
        raise RuntimeError("the first work fails")

    single_flight = SingleFlight(work, max_concurrent=1)
    with pytest.raises(RuntimeError):
        await single_flight.run("a", within=LONG_TIMEOUT)
    assert await later[0] == "a"
