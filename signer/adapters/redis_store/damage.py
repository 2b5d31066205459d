"""Who is told about damaged data in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class DamageLog(Protocol):
    """Where damage is logged. No method raises or waits."""

    def record_damaged(self, key: str) -> None:
        """Write that the data of a key is missing in part, malformed, or of another type."""
        ...

    def junk_removed(self, count: int) -> None:
        """Write how many members without an unsettled record were removed from the indexes in one round."""
        ...

    def indexes_failed(self, keys: Sequence[str], reason: str) -> None:
        """Write that these indexes cannot be read; called when the list changes."""
        ...
