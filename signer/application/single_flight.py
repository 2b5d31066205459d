"""Single-flight: requests for the same work share one task, and the task outlives the requests (ADR 5).

* The first request for a key starts the task; later ones wait for it. A request that is cancelled, or whose time is
  over, does not stop the task.
* At most ``max_concurrent`` tasks run at the same time. More are rejected before they cost anything.
* A drain waits for the running tasks, then cancels those that are left; a cancelled task cleans up after itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from datetime import timedelta
from typing import Any, Generic, TypeVar

from signer.domain.errors import ErrorCode, Unavailable

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class StillRunning(Exception):
    """The caller's time is over and the task still runs, or a drain cancelled it."""


class SingleFlight(Generic[Key, Result]):
    """One kind of work, at most one running task for each key.

    Args:
        work: does the work for a key.
        max_concurrent: how many tasks may run at the same time.
    """

    def __init__(self, work: Callable[[Key], Coroutine[Any, Any, Result]], max_concurrent: int) -> None:
        self._work = work
        self._max_concurrent = max_concurrent
        self._running: dict[Key, asyncio.Task[Result]] = {}

    async def run(self, key: Key, *, within: timedelta) -> Result:
        """Start the work for ``key``, or join the task that does it, and wait for its result.

        Raises:
            StillRunning: the result is not there ``within`` that time.
            Unavailable: ``overloaded``; nothing was started.
        """
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= self._max_concurrent:
                raise Unavailable(ErrorCode.OVERLOADED, "This replica is at capacity; retry.")
            task = asyncio.create_task(self._run(key))
            self._running[key] = task
            task.add_done_callback(_retrieve_exception)
        await asyncio.wait({task}, timeout=within.total_seconds())
        if task.done() and not task.cancelled():  # a drain that cancels the task must not cancel its callers
            return task.result()
        raise StillRunning

    async def drain(self, within: timedelta) -> int:
        """Wait for the running tasks; return how many had to be cancelled."""
        return await drain_tasks(list(self._running.values()), within)

    async def _run(self, key: Key) -> Result:
        try:
            return await self._work(key)
        finally:
            # Here and not in the callback, which runs later: a caller that has seen the work fail starts a new task.
            del self._running[key]


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Mark the exception as retrieved: the work has logged it, and perhaps no caller waits for it."""
    if not task.cancelled():
        task.exception()


async def drain_tasks(tasks: list[asyncio.Task[Any]], within: timedelta) -> int:
    """Wait for tasks, cancel those that take longer and wait for their clean-up; return how many were cancelled."""
    if not tasks:
        return 0
    _, unfinished = await asyncio.wait(tasks, timeout=within.total_seconds())
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    return len(unfinished)
