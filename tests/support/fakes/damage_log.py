"""The protocol ``DamageLog`` in memory."""

from __future__ import annotations

from collections.abc import Sequence


class FakeDamageLog:
    """Records every call.

    Attributes:
        damaged: the keys of damaged records.
        junk: the count of each round that removed junk.
        failed: the indexes that could not be read, and why.
    """

    def __init__(self) -> None:
        self.damaged: list[str] = []
        self.junk: list[int] = []
        self.failed: list[tuple[list[str], str]] = []

    def record_damaged(self, key: str) -> None:
        """See ``DamageLog``."""
        self.damaged.append(key)

    def junk_removed(self, count: int) -> None:
        """See ``DamageLog``."""
        self.junk.append(count)

    def indexes_failed(self, keys: Sequence[str], reason: str) -> None:
        """See ``DamageLog``."""
        self.failed.append((list(keys), reason))
