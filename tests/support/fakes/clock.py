"""A clock that only tests change."""

from __future__ import annotations

from datetime import datetime, timedelta


class FakeClock:
    """The port ``Clock``; time passes only in ``advance``."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the time that the test has set."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock forward."""
        self._now += by
