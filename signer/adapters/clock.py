"""The system clock behind the port ``Clock``. Only this module of the service reads the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The port ``Clock``."""

    def now(self) -> datetime:
        """Return the current time, aware, UTC."""
        return datetime.now(UTC)
