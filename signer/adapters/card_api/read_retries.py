"""Retries for calls that are safe to repeat, within a deadline.

The pause that the card API asked for with ``Retry-After`` is kept. If the next pause would outlast the deadline, the
call ends at once with the failure that is known.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeVar

from signer.adapters.card_api.results import Failure
from signer.application.backoff import Backoff

T = TypeVar("T")

_ATTEMPTS: Final = 4
"""Enough for a restart of the card API's proxy; the breaker opens after five failures."""
_BACKOFF: Final = Backoff(first_pause=timedelta(milliseconds=100), longest_pause=timedelta(seconds=2))
"""Three pauses of together at most 0.7 s: short beside ``card_api.request_timeout``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRetries:
    """How often a call is attempted, and the pauses between the attempts."""

    attempts: int = _ATTEMPTS
    backoff: Backoff = _BACKOFF
    jitter: Callable[[], float] = random.random

    async def run(self, deadline: float, attempt: Callable[[], Awaitable[T | Failure]]) -> T | Failure:
        """Call ``attempt`` until it succeeds, fails for good, or no time is left for another attempt.

        Returns:
            The result of the last attempt; a failure is no longer transient.
        """
        number = 1
        while True:
            result = await attempt()
            if not isinstance(result, Failure) or not result.transient:
                return result
            pause = self.backoff.pause_after(number, self.jitter)
            if result.retry_after is not None:  # jitter on top of it keeps callers apart
                pause += result.retry_after
            seconds = pause.total_seconds()
            if number >= self.attempts or asyncio.get_running_loop().time() + seconds >= deadline:
                return replace(result, transient=False)
            await asyncio.sleep(seconds)
            number += 1
