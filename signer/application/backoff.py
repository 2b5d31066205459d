"""Exponential backoff with jitter: how long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

_MAX_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The pauses between attempts. Each pause is twice the one before, up to a cap, and jittered.

    Attributes:
        first_pause: before the second attempt.
        longest_pause: the cap.
    """

    first_pause: timedelta
    longest_pause: timedelta

    def pause_after(self, attempt: int, jitter: Callable[[], float] = random.random) -> timedelta:
        """Return the pause after attempt number ``attempt`` (from 1): between half of it and all of it.

        Args:
            attempt: how many attempts have failed.
            jitter: returns 0 … 1.
        """
        doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
        pause: timedelta = min(self.first_pause * 2.0**doublings, self.longest_pause)
        return pause * (0.5 + jitter() / 2)
