"""Work that outlives the requests that asked for it, and is shared by all who ask for the same (ADR 5).

* Whoever asks for what is under way joins it. One that goes away, or whose time is over, takes nothing from the others.
* So much is under way at the same time, and no more: what is refused costs neither memory nor a place behind it.
* Asked to drain, it lets what is under way end; what does not end in time is cancelled, and cleans up after itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from datetime import timedelta
from typing import Any, Generic, TypeVar

from signer.domain.errors import ErrorCode, Unavailable

Wish = TypeVar("Wish", bound=Hashable)
Result = TypeVar("Result")


class StillRunning(Exception):
    """The time of one who asked is over, and the work goes on; or it was stopped, and goes on elsewhere."""


class SingleFlight(Generic[Wish, Result]):
    """One kind of work.

    Args:
        do: does it, for whoever asks first.
        most_at_once: how many different pieces may be under way.
    """

    def __init__(self, do: Callable[[Wish], Coroutine[Any, Any, Result]], most_at_once: int) -> None:
        self._do = do
        self._most_at_once = most_at_once
        self._under_way: dict[Wish, asyncio.Task[Result]] = {}

    async def join(self, wish: Wish, *, within: timedelta) -> Result:
        """Have it done, or wait with those who have it done.

        Raises:
            StillRunning: it is not done ``within`` that time.
            Unavailable: ``overloaded``; nothing was begun.
        """
        work = self._under_way.get(wish)
        if work is None:
            if len(self._under_way) >= self._most_at_once:
                raise Unavailable(
                    ErrorCode.OVERLOADED,
                    "As many challenges are being worked on as this replica takes; ask again.",
                )
            work = asyncio.create_task(self._do(wish))
            self._under_way[wish] = work
            work.add_done_callback(lambda done: self._ended(wish, done))
        await asyncio.wait({work}, timeout=within.total_seconds())
        if work.done() and not work.cancelled():  # `drain` cancels work, which is no reason to cancel who waits for it
            return work.result()
        raise StillRunning

    async def drain(self, within: timedelta) -> int:
        """Let what is under way end; gives how many pieces had to be cancelled."""
        return await drained(list(self._under_way.values()), within)

    def _ended(self, wish: Wish, work: asyncio.Task[Result]) -> None:
        self._under_way.pop(wish, None)
        if not work.cancelled():
            work.exception()  # seen here, in case nobody is left to see it


async def drained(work: list[asyncio.Task[Any]], within: timedelta) -> int:
    """Wait for tasks, cancel those that take longer, and wait until they have cleaned up; gives how many they were."""
    if not work:
        return 0
    _, left = await asyncio.wait(work, timeout=within.total_seconds())
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return len(left)
