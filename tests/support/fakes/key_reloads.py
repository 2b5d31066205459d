"""The ports ``KeyReloader`` and ``ReloadLog``: reloads that end when the test says so, and a list of what was told."""

from __future__ import annotations

import asyncio

from signer.application.ports import KeyReloadReport
from signer.application.reload_keys import KeyReload


class FakeKeyReloader:
    """Answers with ``report``, or raises ``error``, once ``open`` is set, as it is at first.

    Attributes:
        begun: how many reloads have begun.
        at_once: how many were under way at the same time, at most.
    """

    def __init__(self) -> None:
        self.report = KeyReloadReport((), (), (), {})
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.begun = self.at_once = 0
        self._under_way = 0

    async def reload(self) -> KeyReloadReport:
        """See ``KeyReloader.reload``."""
        self.begun += 1
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            await self.open.wait()
            if self.error is not None:
                raise self.error
            return self.report
        finally:
            self._under_way -= 1


class FakeReloadLog:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[KeyReload, KeyReloadReport | Exception]] = []

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """See ``ReloadLog.reloaded``."""
        assert duration_ms >= 0
        self.told.append((reload, report))

    def failed(self, reload: KeyReload, error: Exception) -> None:
        """See ``ReloadLog.failed``."""
        self.told.append((reload, error))
