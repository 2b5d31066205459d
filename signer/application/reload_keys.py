"""Reload the keys after a request, a signal or a file change, and keep the result.

* One reload runs at a time. All requests that arrive meanwhile share the next one, which starts after they arrived. So
  at most two reloads are open.
* A reload, and its result, belong to this replica only. The last few results are kept.
* A key that cannot be loaded is part of the result. Only a bug makes a reload fail; the keys then stay as they were.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from signer.application.ports import Clock, KeyReloader, KeyReloadReport

RESULTS_KEPT: Final = 16
"""How many reloads are kept, including open ones."""


class ReloadCause(StrEnum):
    """What started a reload; if several requests share it, the first one."""

    REQUEST = "request"
    SIGNAL = "signal"
    FILES = "files"


class ReloadState(StrEnum):
    """The progress of a reload."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReload:
    """One reload.

    Attributes:
        id: 32 hex digits.
        cause: what started it.
        state: its progress.
        asked_at: when the first request for it arrived.
        ended_at: when it ended, or ``None``.
        report: what it changed, if it is ``done``.
    """

    id: str
    cause: ReloadCause
    state: ReloadState
    asked_at: datetime
    ended_at: datetime | None = None
    report: KeyReloadReport | None = None


class ReloadLog(Protocol):
    """Logs reloads. The methods neither raise nor block."""

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """Log a finished reload and each key that could not be loaded."""
        ...

    def failed(self, reload: KeyReload, error: Exception) -> None:
        """Log a reload that ended with an unexpected error."""
        ...


class ReloadKeys:
    """Reloads the keys, one reload at a time."""

    def __init__(self, reloader: KeyReloader, clock: Clock, log: ReloadLog) -> None:
        """Create the use case; nothing runs before ``begin``."""
        self._reloader = reloader
        self._clock = clock
        self._log = log
        self._reloads: dict[str, KeyReload] = {}
        self._waiting: str | None = None
        self._reload_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, cause: ReloadCause) -> KeyReload:
        """Return the reload that starts from now on, without waiting for it."""
        if self._waiting is None:
            self._waiting = uuid.uuid4().hex
            reload = KeyReload(id=self._waiting, cause=cause, state=ReloadState.PENDING, asked_at=self._clock.now())
            self._keep(reload)
            task = asyncio.create_task(self._reload_in_turn(reload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return self._reloads[self._waiting]

    def find(self, reload_id: str) -> KeyReload | None:
        """Return a reload in its present state, or ``None`` if it is unknown or no longer kept."""
        return self._reloads.get(reload_id)

    async def close(self) -> None:
        """Cancel open reloads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reload_in_turn(self, reload: KeyReload) -> None:
        async with self._reload_lock:
            self._waiting = None  # a request from here on may be about a change that this reload does not see
            began = time.perf_counter()
            try:
                report = await self._reloader.reload()
            except Exception as error:  # noqa: BLE001 - every reload gets a result, and the next one its turn
                self._end(replace(reload, state=ReloadState.FAILED))
                self._log.failed(reload, error)
            else:
                self._end(replace(reload, state=ReloadState.DONE, report=report))
                self._log.reloaded(reload, report, (time.perf_counter() - began) * 1000)

    def _end(self, reload: KeyReload) -> None:
        self._keep(replace(reload, ended_at=self._clock.now()))

    def _keep(self, reload: KeyReload) -> None:
        self._reloads[reload.id] = reload
        while len(self._reloads) > RESULTS_KEPT:
            del self._reloads[next(iter(self._reloads))]
