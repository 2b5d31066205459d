"""One thread for all that is not a signature: connecting, looking whether a token is well, letting go of it.

What is given to it is done in turn. A call that hangs cannot be ended, so whoever waits is told, and what was asked for
stays asked for: it is done when the thread comes back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from signer.adapters.keys.pkcs11.cryptoki.library import seconds_inside

_LOOKS_WITHIN_PATIENCE: Final = 4

_T = TypeVar("_T")
_Work = tuple[Callable[[], Any], asyncio.Future[Any]]


class ControlThread:
    """A daemon thread that works for one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="pkcs11-control", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Have something done; work that is cancelled before its turn is left out."""
        done: asyncio.Future[_T] = self._loop.create_future()
        self._work.put((work, done))
        return done

    async def comes_back(self, done: asyncio.Future[_T], patience: float) -> bool:
        """Wait until something is done.

        Args:
            done: what ``submit`` has given.
            patience: seconds that one call into a library may take.

        Returns:
            Whether it is; ``False`` as soon as a call takes longer.
        """
        while not done.done():
            await asyncio.wait({done}, timeout=patience / _LOOKS_WITHIN_PATIENCE)
            if not done.done() and seconds_inside(self._thread.ident) > patience:
                return False
        return True

    def close(self) -> None:
        """End the thread after what it has to do."""
        self._work.put(None)

    def _serve(self) -> None:
        while (asked := self._work.get()) is not None:
            work, done = asked
            if done.cancelled():
                continue
            result, error = None, None
            try:
                result = work()
            except Exception as exc:  # noqa: BLE001 - it is the asker's
                error = exc
            try:
                self._loop.call_soon_threadsafe(_settle, done, result, error)
            except RuntimeError:  # the event loop is closed
                return


def _settle(done: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
