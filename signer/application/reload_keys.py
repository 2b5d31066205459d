"""Look at the keys again, because somebody asked, a signal came or files have changed; and remember what came of it.

* One reload is under way at a time. Whoever asks meanwhile shares the next one with all others who do: it begins after
  they asked, so it sees what they have seen. However many ask, two reloads at most are open.
* A reload is of this replica alone, and so is its result. The last few results are kept, no more.
* What could not be loaded is part of the result. Only a defect makes a reload fail; the keys then are what they were.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from signer.application.ports import Clock, KeyReloader, KeyReloadReport

RESULTS_KEPT: Final = 16
"""How many reloads are remembered, those that are open among them."""


class ReloadCause(StrEnum):
    """Who wanted the keys to be looked at; of several who share a reload, the first."""

    REQUEST = "request"
    SIGNAL = "signal"
    FILES = "files"


class ReloadState(StrEnum):
    """How far a reload is."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReload:
    """One reload.

    Attributes:
        id: 32 hex digits.
        cause: why.
        state: how far it is.
        asked_at: when the first of those who share it asked.
        ended_at: when it ended, if it has.
        report: what it changed, where it is ``done``.
    """

    id: str
    cause: ReloadCause
    state: ReloadState
    asked_at: datetime
    ended_at: datetime | None = None
    report: KeyReloadReport | None = None


class ReloadLog(Protocol):
    """Where reloads are written down. Neither method raises, and neither waits."""

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """Write that a reload is done, and all that it could not load."""
        ...

    def failed(self, reload: KeyReload, error: Exception) -> None:
        """Write that a reload met an error that nobody expected."""
        ...


class ReloadKeys:
    """The use case."""

    def __init__(
        self,
        reloader: KeyReloader,
        clock: Clock,
        log: ReloadLog,
        *,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Take what reloads; nothing runs before somebody asks."""
        self._reloader = reloader
        self._clock = clock
        self._log = log
        self._new_id = new_id
        self._reloads: dict[str, KeyReload] = {}
        self._next: str | None = None
        self._one_at_a_time = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()

    def begin(self, cause: ReloadCause) -> KeyReload:
        """Have the keys looked at, from now on; gives the reload that will do it, and does not wait for it."""
        if self._next is None:
            self._next = self._new_id()
            reload = KeyReload(id=self._next, cause=cause, state=ReloadState.PENDING, asked_at=self._clock.now())
            self._remember(reload)
            work = asyncio.create_task(self._reload_in_turn(reload))  # on behalf of who asks, as the log will say
            self._work.add(work)
            work.add_done_callback(self._work.discard)
        return self._reloads[self._next]

    def find(self, reload_id: str) -> KeyReload | None:
        """Give a reload as it stands now, or ``None`` where it is not known, or not any more."""
        return self._reloads.get(reload_id)

    async def close(self) -> None:
        """Stop: nobody waits for the result any more."""
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _reload_in_turn(self, reload: KeyReload) -> None:
        async with self._one_at_a_time:
            self._next = None  # whoever asks from here on may know more than we are about to read
            began = time.perf_counter()
            try:
                report = await self._reloader.reload()
            except Exception as error:  # noqa: BLE001 - whatever it was, those who asked get an end, and others a turn
                self._end(replace(reload, state=ReloadState.FAILED))
                self._log.failed(reload, error)
            else:
                self._end(replace(reload, state=ReloadState.DONE, report=report))
                self._log.reloaded(reload, report, (time.perf_counter() - began) * 1000)

    def _end(self, reload: KeyReload) -> None:
        self._remember(replace(reload, ended_at=self._clock.now()))

    def _remember(self, reload: KeyReload) -> None:
        self._reloads[reload.id] = reload
        while len(self._reloads) > RESULTS_KEPT:
            del self._reloads[next(iter(self._reloads))]
