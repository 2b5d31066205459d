"""Asks again for what can be asked again: jittered pauses that double, within a deadline.

A loop of our own instead of a library's: a pause that the API asked for with ``Retry-After`` is kept, and a pause that
would outlast the deadline ends the work at once with what is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from signer.adapters.card_api.upstream_result import Failure

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """How often, and after which pauses.

    Attributes:
        attempts: the greatest number of them, the first included.
        first_pause: before the second attempt; it doubles with each one, and is jittered to between half and all of it.
        longest_pause: the cap on that.
        jitter: gives 0 … 1.
    """

    attempts: int
    first_pause: timedelta
    longest_pause: timedelta
    jitter: Callable[[], float]

    def pause_after(self, attempt: int, asked: timedelta | None) -> timedelta:
        """Give the pause behind attempt number ``attempt``; it comes on top of what the API asked for."""
        doubled: timedelta = self.first_pause * 2 ** min(attempt - 1, 16)
        pause = min(doubled, self.longest_pause) * (0.5 + self.jitter() / 2)
        return pause if asked is None else asked + pause

    async def until(self, deadline: float, attempt: Callable[[], Awaitable[T | Failure]]) -> T | Failure:
        """Attempt it until it succeeds, fails for good, or there is no time for another attempt.

        Args:
            deadline: in the event loop's time; the attempts keep it themselves.
            attempt: what is done.

        Returns:
            What the last attempt gave; a failure is not transient any more.
        """
        number = 1
        while True:
            outcome = await attempt()
            if not isinstance(outcome, Failure) or not outcome.transient:
                return outcome
            pause = self.pause_after(number, outcome.retry_after).total_seconds()
            if number >= self.attempts or asyncio.get_running_loop().time() + pause >= deadline:
                return replace(outcome, transient=False)
            await asyncio.sleep(pause)
            number += 1
