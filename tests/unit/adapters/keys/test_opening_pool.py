"""The opening pool: bounded by cores and by memory, whatever its callers do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from signer.adapters.keys.opening_pool import OpeningPool, available_cores

WAIT = 20.0
"""Seconds after which a test that hangs is a failure."""


@pytest.fixture
def pool() -> Iterator[OpeningPool]:
    """Four threads and ten bytes."""
    pool = OpeningPool(memory_budget=10, threads=4)
    yield pool
    pool.close()


class Gauge:
    """Measures how much is in use at once."""

    def __init__(self) -> None:
        self.peak = 0
        self._now = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        """Change what is in use."""
        with self._lock:
            self._now += amount
            self.peak = max(self.peak, self._now)


async def test_memory_bounds_what_runs_at_once(pool: OpeningPool) -> None:
    """Jobs of five bytes run two at a time within ten, and two of them do meet."""
    gauge, meeting = Gauge(), threading.Barrier(2)

    def job() -> None:
        gauge.add(5)
        meeting.wait(WAIT)
        gauge.add(-5)

    await asyncio.gather(*(pool.run(job, memory=5) for _ in range(20)))
    assert gauge.peak == 10


async def test_threads_bound_what_runs_at_once() -> None:
    """Jobs that cost no memory run as many at a time as there are threads."""
    pool, gauge, meeting = OpeningPool(memory_budget=0, threads=2), Gauge(), threading.Barrier(2)

    def job() -> None:
        gauge.add(1)
        meeting.wait(WAIT)
        gauge.add(-1)

    await asyncio.gather(*(pool.run(job) for _ in range(20)))
    pool.close()
    assert gauge.peak == 2


async def test_a_cancelled_caller_does_not_free_memory_in_use(pool: OpeningPool) -> None:
    """Work goes on when its caller is gone, and its memory is free when it ends."""
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        go_on.wait(WAIT)
        order.append("first ends")

    task = asyncio.create_task(pool.run(first, memory=10))
    await asyncio.to_thread(begun.wait, WAIT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = asyncio.create_task(pool.run(lambda: order.append("second begins"), memory=1))
    await asyncio.sleep(0)
    go_on.set()
    await second
    assert order == ["first ends", "second begins"]


async def test_an_error_frees_its_memory(pool: OpeningPool) -> None:
    """Work that fails gives its error to its caller and its memory back."""

    def fail() -> None:
        raise OSError("no")

    for _ in range(5):
        with pytest.raises(OSError, match="no"):
            await pool.run(fail, memory=10)
    assert await pool.run(lambda: "done", memory=10) == "done"


async def test_more_than_the_budget_is_refused(pool: OpeningPool) -> None:
    """What could never begin is an error at once."""
    with pytest.raises(ValueError, match="budget"):
        await pool.run(lambda: None, memory=11)


async def test_a_closed_pool_takes_no_work(pool: OpeningPool) -> None:
    """After ``close`` nothing new begins."""
    pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(lambda: None)


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without CPU affinity, all its cores count; where nobody knows, one does."""
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert available_cores() == 7
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_cores() == 1


def test_there_is_a_thread_for_each_core() -> None:
    """By default the pool is as wide as the machine."""
    assert OpeningPool(memory_budget=0, threads=0).threads == available_cores() >= 1
