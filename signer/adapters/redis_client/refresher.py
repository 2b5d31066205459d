"""When a topology is looked up again: one lookup at a time, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from signer.adapters.redis_client.failures import PrimaryNotFound

REFRESH_INTERVAL_SECONDS: Final = 0.1
"""The shortest time between two refreshes, however many calls request one."""
_SLOW_CALL_SECONDS: Final = 0.25
"""A call that takes longer may be waiting for a server that hangs and has been replaced."""


class TopologyRefresher:
    """Runs one refresh at a time, at most one per ``REFRESH_INTERVAL_SECONDS``.

    Args:
        refresh: finds out where the primaries are and stores it; raises ``PrimaryNotFound``.
    """

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        self._refresh = refresh
        self._task: asyncio.Task[PrimaryNotFound | None] | None = None
        self._next = 0.0
        self.is_closed = False

    def request(self) -> None:
        """Start a refresh, unless one is running or this object is closed."""
        if not self.is_closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def refresh(self, deadline: float) -> None:
        """Start a refresh, or join the running one, and wait for it.

        Raises:
            PrimaryNotFound: no server names the primary, or this object is closed.
            TimeoutError: it took too long.
        """
        self.request()
        task = self._task
        if task is not None and not self.is_closed:
            done, _ = await asyncio.wait({task}, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
            if not done:
                raise TimeoutError
        if task is None or self.is_closed:
            raise PrimaryNotFound("The connections to the store are closed: the service is stopping.")
        if (error := task.result()) is not None:
            raise error

    @contextmanager
    def watch_call(self) -> Iterator[None]:
        """Request refreshes for as long as the call is slow: a server that hangs is closed when it is replaced."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def request() -> None:
            nonlocal timer
            self.request()
            timer = loop.call_later(REFRESH_INTERVAL_SECONDS, request)

        timer = loop.call_later(_SLOW_CALL_SECONDS, request)
        try:
            yield
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Cancel the running refresh and start no other."""
        self.is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> PrimaryNotFound | None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._next - loop.time(), 0))
        self._next = loop.time() + REFRESH_INTERVAL_SECONDS
        try:
            await self._refresh()
        except PrimaryNotFound as error:
            return error
        except (LookupError, TypeError, ValueError) as exc:  # a response with a shape that no known server has
            unreadable = PrimaryNotFound(
                "The servers' responses about the primary cannot be read; check redis.url.", cause="configuration"
            )
            unreadable.__cause__ = exc
            return unreadable
        return None
