"""The opening pool: limited by threads and by memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from signer.adapters.keys.opening_pool import OpeningPool, available_cores

WAIT = 20.0
"""Seconds after which a hanging test fails."""


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


async def test_memory_limits_concurrent_work(pool: OpeningPool) -> None:
    """Jobs of five bytes run two at a time within a budget of ten."""
    gauge, meeting = Gauge(), threading.Barrier(2)

    def job() -> None:
        gauge.add(5)
        meeting.wait(WAIT)
        gauge.add(-5)

    await asyncio.gather(*(pool.run(job, memory=5) for _ in range(20)))
    assert gauge.peak == 10


async def test_threads_limit_concurrent_work() -> None:
    """Jobs without memory run as many at a time as there are threads."""
    pool, gauge, meeting = OpeningPool(memory_budget=0, threads=2), Gauge(), threading.Barrier(2)

    def job() -> None:
        gauge.add(1)
        meeting.wait(WAIT)
        gauge.add(-1)

    await asyncio.gather(*(pool.run(job) for _ in range(20)))
    pool.close()
    assert gauge.peak == 2


async def test_cancelled_caller_does_not_free_memory_in_use(pool: OpeningPool) -> None:
    """The work continues, and its memory is free when it ends."""
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


async def test_failed_work_frees_its_memory(pool: OpeningPool) -> None:
    """The error reaches the caller."""

    def fail() -> None:
        raise OSError("no")

    for _ in range(5):
        with pytest.raises(OSError, match="no"):
            await pool.run(fail, memory=10)
    assert await pool.run(lambda: "done", memory=10) == "done"


async def test_work_beyond_budget_is_refused(pool: OpeningPool) -> None:
    """It could never start."""
    with pytest.raises(ValueError, match="budget"):
        await pool.run(lambda: None, memory=11)


async def test_closed_pool_accepts_no_work(pool: OpeningPool) -> None:
    """``close`` is final."""
    pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(lambda: None)


def test_all_cores_count_without_cpu_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """If their number is unknown, it is one."""
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert available_cores() == 7
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_cores() == 1


def test_zero_threads_means_one_for_each_core() -> None:
    """It is the default of the settings."""
    assert OpeningPool(memory_budget=0, threads=0).threads == available_cores() >= 1


async def test_close_does_not_wait_for_running_work() -> None:
    """A stop is not delayed by a key derivation that takes seconds."""
    pool, began, go_on = OpeningPool(memory_budget=0, threads=1), threading.Event(), threading.Event()

    def work() -> bool:
        began.set()
        return go_on.wait(WAIT)

    running = asyncio.create_task(pool.run(work))
    await asyncio.to_thread(began.wait, WAIT)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    await asyncio.wait({closing}, timeout=WAIT / 2)
    was_closed = closing.done()
    go_on.set()
    assert (was_closed, await running) == (True, True)
