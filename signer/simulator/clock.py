"""The simulator's clock: the machine's, plus an offset that can be changed while it runs.

An offset behind the caller's clock makes a fresh request signature look created in the future.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SimulatorClock:
    """A clock with an offset.

    Attributes:
        offset: seconds added to the machine's clock; negative for a slow clock.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        """Return the seconds since the epoch, with fraction."""
        return time.time() + self.offset


def as_datetime(moment: float) -> datetime:
    """Return the moment (seconds since the epoch) as an aware UTC datetime."""
    return datetime.fromtimestamp(moment, tz=UTC)


def as_rfc3339(moment: float) -> str:
    """Format the moment with microseconds and ``Z``: ``2024-01-12T14:53:02.653457Z``, the form of ``createdAt``."""
    return as_datetime(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_rfc3339_seconds(moment: float) -> str:
    """Format the moment in whole seconds and ``Z``: ``2024-01-17T18:21:53Z``, the form of ``Issued At``."""
    return as_datetime(moment).isoformat(timespec="seconds").replace("+00:00", "Z")
