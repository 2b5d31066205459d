"""Tests: one reload runs at a time, later requests share the next one, and the last results are kept."""

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
class Bench:
    """The use case with its fakes."""

    reloader: FakeKeyReloader = field(default_factory=FakeKeyReloader)
    log: FakeReloadLog = field(default_factory=FakeReloadLog)
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def __post_init__(self) -> None:
        self.reload = ReloadKeys(self.reloader, self.clock, self.log)

    async def wait_until_ended(self, reload_id: str) -> KeyReload:
        """Wait until a reload has ended; return it."""
        while True:
            reload = self.reload.find(reload_id)
            assert reload is not None
            if reload.state is not ReloadState.PENDING:
                return reload
            await asyncio.sleep(0)

    async def wait_until_started(self, count: int) -> None:
        """Wait until this many reloads have started."""
        while self.reloader.begun < count:  # noqa: ASYNC110 - a few loop iterations are enough
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A use case that is closed at the end."""
    bench = Bench()
    yield bench
    await bench.reload.close()


async def test_reload_is_pending_until_it_has_its_report(bench: Bench) -> None:
    """``begin`` does not wait; the result is logged once."""
    bench.reloader.report = REPORT
    begun = bench.reload.begin(ReloadCause.REQUEST)
    assert (begun.state, begun.cause, begun.asked_at) == (ReloadState.PENDING, ReloadCause.REQUEST, NOW)
    assert (begun.ended_at, begun.report) == (None, None)
    assert len(begun.id) == 32
    assert bench.reload.find(begun.id) == begun
    bench.clock.advance(timedelta(seconds=3))
    ended = await bench.wait_until_ended(begun.id)
    assert (ended.state, ended.asked_at, ended.ended_at) == (ReloadState.DONE, NOW, NOW + timedelta(seconds=3))
    assert ended.report is REPORT
    assert [(logged.id, report) for logged, report in bench.log.records] == [(begun.id, REPORT)]


async def test_requests_during_a_reload_share_the_next_one(bench: Bench) -> None:
    """It starts after they arrived; its cause is the first one's."""
    bench.reloader.open.clear()
    first = bench.reload.begin(ReloadCause.REQUEST)
    await bench.wait_until_started(1)
    shared = [bench.reload.begin(cause) for cause in (ReloadCause.SIGNAL, ReloadCause.FILES, ReloadCause.REQUEST)]
    assert {reload.id for reload in shared} == {shared[0].id}
    assert shared[0].id != first.id
    assert shared[2].cause is ReloadCause.SIGNAL
    assert bench.reloader.begun == 1
    bench.reloader.open.set()
    await bench.wait_until_ended(shared[0].id)
    assert (bench.reloader.begun, bench.reloader.at_once) == (2, 1)
    assert [logged.id for logged, _ in bench.log.records] == [first.id, shared[0].id]


async def test_requests_before_a_reload_starts_share_it(bench: Bench) -> None:
    """It sees every change that they know of."""
    reload_ids = {bench.reload.begin(ReloadCause.REQUEST).id for _ in range(10)}
    assert len(reload_ids) == 1
    await bench.wait_until_ended(reload_ids.pop())
    assert bench.reloader.begun == 1


async def test_request_after_last_reload_starts_another_one(bench: Bench) -> None:
    """It does not get the old result."""
    first = await bench.wait_until_ended(bench.reload.begin(ReloadCause.REQUEST).id)
    await asyncio.sleep(0)
    second = await bench.wait_until_ended(bench.reload.begin(ReloadCause.SIGNAL).id)
    assert (first.id != second.id, second.state, bench.reloader.begun) == (True, ReloadState.DONE, 2)


async def test_unexpected_error_fails_only_its_reload(bench: Bench) -> None:
    """It is logged, and the waiting reload runs."""
    bench.reloader.error = RuntimeError("a defect")
    bench.reloader.open.clear()
    first = bench.reload.begin(ReloadCause.FILES)
    await bench.wait_until_started(1)
    second = bench.reload.begin(ReloadCause.REQUEST)
    bench.reloader.open.set()
    failed = await bench.wait_until_ended(first.id)
    assert (failed.state, failed.report, failed.ended_at) == (ReloadState.FAILED, None, NOW)
    assert (await bench.wait_until_ended(second.id)).state is ReloadState.FAILED
    assert [logged.id for logged, error in bench.log.records if error is bench.reloader.error] == [first.id, second.id]


async def test_only_last_results_are_kept(bench: Bench) -> None:
    """Memory does not grow with the number of reloads."""
    ids = [
        (await bench.wait_until_ended(bench.reload.begin(ReloadCause.REQUEST).id)).id for _ in range(RESULTS_KEPT + 2)
    ]
    assert [bench.reload.find(each) is not None for each in ids] == [False, False, *[True] * RESULTS_KEPT]
    assert bench.reload.find("0" * 32) is None


async def test_close_cancels_running_reload() -> None:
    """Closing without a reload works too."""
    bench = Bench()
    bench.reloader.open.clear()
    reload = bench.reload.begin(ReloadCause.REQUEST)
    await bench.wait_until_started(1)
    await bench.reload.close()
    assert bench.reload.find(reload.id) == reload
    assert bench.log.records == []
    await Bench().reload.close()
