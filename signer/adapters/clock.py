"""The machine's wall clock, behind the port ``Clock``: the one place of the service that reads it."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The port ``Clock``."""

    def now(self) -> datetime:
        """Give the present, aware, UTC."""
        return datetime.now(UTC)
