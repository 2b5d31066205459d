"""Runs blocking work that may hang, such as a read from a network mount, on a thread of its own.

The threads of ``asyncio.to_thread`` are not made for that: the end of the process waits for them, and a few that hang
take the place of all others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")


def run_on_daemon_thread(work: Callable[[], _T], name: str) -> asyncio.Future[_T]:
    """Start ``work`` on a new daemon thread, which the end of the process does not wait for; return its result.

    The thread cannot be cancelled: if the caller cancels the future, or no longer waits for it, the work goes on.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            set_outcome = partial(done.set_result, work())
        except Exception as exc:  # noqa: BLE001 - raised where the future is awaited
            set_outcome = partial(done.set_exception, exc)
        with suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(_unless_done, done, set_outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def _unless_done(future: asyncio.Future[Any], set_outcome: Callable[[], None]) -> None:
    if not future.done():
        set_outcome()
