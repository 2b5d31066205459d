"""The port ``Clock``, standing still until it is moved."""

from __future__ import annotations

from datetime import datetime, timedelta


class FakeClock:
    """A clock that a test moves."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """Give the present that the test has set."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by
