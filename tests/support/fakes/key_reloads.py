"""The ports ``KeyReloader`` and ``ReloadLog``: reloads that end when the test allows it, and a recorded log."""

from __future__ import annotations

import asyncio

from signer.application.ports import KeyReloadReport
from signer.application.reload_keys import KeyReload


class FakeKeyReloader:
    """Returns ``report``, or raises ``error`` one time, once ``open`` is set, as it is at first.

    Attributes:
        begun: how many reloads have started.
        at_once: the greatest number of concurrent reloads.
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
            error, self.error = self.error, None
            if error is not None:
                raise error
            return self.report
        finally:
            self._under_way -= 1


class FakeReloadLog:
    """Records its calls."""

    def __init__(self) -> None:
        self.records: list[tuple[KeyReload, KeyReloadReport | Exception]] = []

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """See ``ReloadLog.reloaded``."""
        assert duration_ms >= 0
        self.records.append((reload, report))

    def failed(self, reload: KeyReload, error: Exception) -> None:
        """See ``ReloadLog.failed``."""
        self.records.append((reload, error))
