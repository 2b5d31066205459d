"""The wall clock."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The wall clock, for the rules about issue and expiry. Leases live by the store's clock."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...
