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
