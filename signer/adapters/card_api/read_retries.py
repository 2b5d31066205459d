"""Retries for calls that are safe to repeat, within a deadline.

``run`` waits at least the card API's ``Retry-After``. If the next pause would end after the deadline, it returns the
last failure at once.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Self, TypeVar

from signer.adapters.card_api.results import Failure
from signer.application.backoff import Backoff

T = TypeVar("T")

_ATTEMPTS: Final = 4
"""Enough for a restart of the card API's proxy; the breaker opens after five failures."""
_BACKOFF: Final = Backoff(first_pause=timedelta(milliseconds=100), longest_pause=timedelta(seconds=2))
"""Three pauses, 0.7 s in total at most: short compared with ``card_api.request_timeout``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRetries:
    """How often a call is attempted, and the pauses between the attempts."""

    attempts: int = _ATTEMPTS
    backoff: Backoff = _BACKOFF
    jitter: Callable[[], float] = random.random

    def until_deadline(self) -> Self:
        """Return the same with any number of attempts."""
        return replace(self, attempts=sys.maxsize)

    async def run(self, deadline: float, attempt: Callable[[], Awaitable[T | Failure]]) -> T | Failure:
        """Call ``attempt`` until it succeeds, fails with an error that is not transient, or no time is left.

        Returns:
            The result of the last attempt. A failure has ``transient=False``: the caller does not retry it again.
        """
        number = 1
        while True:
            result = await attempt()
            if not isinstance(result, Failure) or not result.transient:
                return result
            pause = self.backoff.pause_after(number, self.jitter)
            if result.retry_after is not None:  # with jitter on top, so that not all callers retry at once
                pause += result.retry_after
            seconds = pause.total_seconds()
            if number >= self.attempts or asyncio.get_running_loop().time() + seconds >= deadline:
                return replace(result, transient=False)
            await asyncio.sleep(seconds)
            number += 1
