"""The watch of readiness writes which checks fail, once they have failed twice in a row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from signer.application.admission import AdmissionGate
from signer.bootstrap import readiness_watch
from signer.bootstrap.readiness_watch import ReadinessWatch
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability.writers import RequestLogLines
from signer.web.health import Check, Readiness


class Watched:
    """Checks whose results a test gives, round by round, and the events that were written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing: set[str] = set()
        self.written: list[tuple[str, Any]] = []
        monkeypatch.setattr(
            readiness_watch, "emit", lambda event, **fields: self.written.append((event.name, fields.get("checks")))
        )
        self.readiness = Readiness(
            {name: Check(self._check(name)) for name in ("redis", "card_api")}, RequestLogLines()
        )
        admission = AdmissionGate()
        admission.open()
        self.watch = ReadinessWatch(self.readiness, lambda: (), admission)

    def _check(self, name: str) -> Any:  # noqa: ANN401 - a check
        async def run() -> None:
            if name in self.failing:
                raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "It is down.")

        return run

    async def round(self, *failing: str) -> None:
        """Run one round of the watch."""
        self.failing = set(failing)
        self.readiness.forget()
        self.watch._note([result for result in await self.readiness.report() if result.error is not None])


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Checks that pass."""
    return Watched(monkeypatch)


async def test_check_that_fails_twice_is_written_although_another_one_comes_and_goes(watched: Watched) -> None:
    """Only the one that lasts is named, once; the end is written when none fails."""
    for number in range(6):
        await watched.round("redis", *(["card_api"] if number % 2 else []))
    assert watched.written == [("service.not_ready", ["redis"])]
    await watched.round()
    assert watched.written[1:] == [("service.ready_again", None)]


async def test_check_that_fails_once_is_no_change(watched: Watched) -> None:
    """One slow report is none."""
    await watched.round("redis")
    await watched.round()
    await watched.round("card_api")
    await watched.round("redis")
    assert watched.written == []


async def test_closed_readiness_leaves_no_report(watched: Watched) -> None:
    """A check that runs is cancelled."""
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    readiness = Readiness({"redis": Check(hang)}, RequestLogLines())
    reporting = asyncio.create_task(readiness.report())
    await started.wait()
    await readiness.aclose()
    with pytest.raises(asyncio.CancelledError):
        await reporting
