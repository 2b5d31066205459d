"""Reloads: one at a time, shared by those who ask meanwhile, remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from signer.application.ports import KeyReloadReport
from signer.application.reload_keys import RESULTS_KEPT, KeyReload, ReloadCause, ReloadKeys, ReloadState
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.key_reloads import FakeKeyReloader, FakeReloadLog

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
REPORT = KeyReloadReport(("0xA",), ("0xB",), ("0xC", "0xD"), {"given:e": "is broken"})


@dataclass
class Room:
    """The use case and all that it knows."""

    reloader: FakeKeyReloader = field(default_factory=FakeKeyReloader)
    log: FakeReloadLog = field(default_factory=FakeReloadLog)
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def __post_init__(self) -> None:
        self.reload = ReloadKeys(self.reloader, self.clock, self.log)

    async def ended(self, reload_id: str) -> KeyReload:
        """Wait for a reload's end."""
        while True:
            reload = self.reload.find(reload_id)
            assert reload is not None
            if reload.state is not ReloadState.PENDING:
                return reload
            await asyncio.sleep(0)

    async def begun(self, count: int) -> None:
        """Wait until so many reloads have begun."""
        while self.reloader.begun < count:  # noqa: ASYNC110 - it is a matter of loop turns
            await asyncio.sleep(0)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    """A use case that is closed at the end."""
    room = Room()
    yield room
    await room.reload.close()


async def test_a_reload_is_pending_and_then_has_its_report(room: Room) -> None:
    """What ``begin`` gives is not waited for; its id leads to the result, which is told once."""
    room.reloader.report = REPORT
    begun = room.reload.begin(ReloadCause.REQUEST)
    assert (begun.state, begun.cause, begun.asked_at) == (ReloadState.PENDING, ReloadCause.REQUEST, NOW)
    assert (begun.ended_at, begun.report) == (None, None)
    assert len(begun.id) == 32
    assert room.reload.find(begun.id) == begun
    room.clock.advance(timedelta(seconds=3))
    ended = await room.ended(begun.id)
    assert (ended.state, ended.asked_at, ended.ended_at) == (ReloadState.DONE, NOW, NOW + timedelta(seconds=3))
    assert ended.report is REPORT
    assert [(told.id, report) for told, report in room.log.told] == [(begun.id, REPORT)]


async def test_those_who_ask_during_a_reload_share_the_next(room: Room) -> None:
    """One reload is under way at a time, and it begins after they asked; the cause is the first one's."""
    room.reloader.open.clear()
    first = room.reload.begin(ReloadCause.REQUEST)
    await room.begun(1)
    shared = [room.reload.begin(cause) for cause in (ReloadCause.SIGNAL, ReloadCause.FILES, ReloadCause.REQUEST)]
    assert {reload.id for reload in shared} == {shared[0].id}
    assert shared[0].id != first.id
    assert shared[2].cause is ReloadCause.SIGNAL
    assert room.reloader.begun == 1
    room.reloader.open.set()
    await room.ended(shared[0].id)
    assert (room.reloader.begun, room.reloader.at_once) == (2, 1)
    assert [told.id for told, _ in room.log.told] == [first.id, shared[0].id]


async def test_those_who_ask_before_it_begins_share_it(room: Room) -> None:
    """A reload that has been asked for and has not begun sees what they have seen."""
    asked = {room.reload.begin(ReloadCause.REQUEST).id for _ in range(10)}
    assert len(asked) == 1
    await room.ended(asked.pop())
    assert room.reloader.begun == 1


async def test_after_the_last_reload_another_one_begins_anew(room: Room) -> None:
    """Whoever comes later gets a reload of his own."""
    first = await room.ended(room.reload.begin(ReloadCause.REQUEST).id)
    await asyncio.sleep(0)
    second = await room.ended(room.reload.begin(ReloadCause.SIGNAL).id)
    assert (first.id != second.id, second.state, room.reloader.begun) == (True, ReloadState.DONE, 2)


async def test_a_defect_ends_a_reload_and_not_the_next(room: Room) -> None:
    """Who asked hears that it failed, the log hears why, and those who wait have their turn."""
    room.reloader.error = RuntimeError("a defect")
    room.reloader.open.clear()
    first = room.reload.begin(ReloadCause.FILES)
    await room.begun(1)
    second = room.reload.begin(ReloadCause.REQUEST)
    room.reloader.open.set()
    failed = await room.ended(first.id)
    assert (failed.state, failed.report, failed.ended_at) == (ReloadState.FAILED, None, NOW)
    assert (await room.ended(second.id)).state is ReloadState.FAILED
    assert [told.id for told, error in room.log.told if error is room.reloader.error] == [first.id, second.id]


async def test_only_the_last_results_are_kept(room: Room) -> None:
    """A thousand reloads take no more memory than a few."""
    ids = [(await room.ended(room.reload.begin(ReloadCause.REQUEST).id)).id for _ in range(RESULTS_KEPT + 2)]
    assert [room.reload.find(each) is not None for each in ids] == [False, False, *[True] * RESULTS_KEPT]
    assert room.reload.find("0" * 32) is None


async def test_closing_stops_what_is_under_way() -> None:
    """A process that ends waits for no backend; one that never reloaded has nothing to stop."""
    room = Room()
    room.reloader.open.clear()
    reload = room.reload.begin(ReloadCause.REQUEST)
    await room.begun(1)
    await room.reload.close()
    assert room.reload.find(reload.id) == reload
    assert room.log.told == []
    await Room().reload.close()
