"""Tests: one reload runs at a time, later requests share the next one, and the last results are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from signer.application import reload_keys
from signer.application.ports import KeyReloadReport
from signer.application.reload_keys import RESULTS_KEPT, KeyReload, ReloadCause, ReloadKeys, ReloadState
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.key_reloads import FakeKeyReloader, FakeReloadLog

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
REPORT = KeyReloadReport(added=("0xA",), removed=("0xB",), unchanged=("0xC", "0xD"), failed={"given:e": "is broken"})


@dataclass
class Harness:
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
async def harness() -> AsyncIterator[Harness]:
    """A use case that is closed at the end."""
    harness = Harness()
    yield harness
    await harness.reload.close()


async def test_reload_is_pending_until_it_has_its_report(harness: Harness) -> None:
    """``begin`` does not wait; the result is logged once."""
    harness.reloader.report = REPORT
    begun = harness.reload.begin(ReloadCause.REQUEST)
    assert (begun.state, begun.cause, begun.asked_at) == (ReloadState.PENDING, ReloadCause.REQUEST, NOW)
    assert (begun.ended_at, begun.report) == (None, None)
    assert len(begun.id) == 32
    assert harness.reload.find(begun.id) == begun
    harness.clock.advance(timedelta(seconds=3))
    ended = await harness.wait_until_ended(begun.id)
    assert (ended.state, ended.asked_at, ended.ended_at) == (ReloadState.DONE, NOW, NOW + timedelta(seconds=3))
    assert ended.report is REPORT
    assert [(logged.id, report) for logged, report in harness.log.records] == [(begun.id, REPORT)]


async def test_requests_during_a_reload_share_the_next_one(harness: Harness) -> None:
    """The next reload starts after all of them arrived; its cause is that of the first."""
    harness.reloader.open.clear()
    first = harness.reload.begin(ReloadCause.REQUEST)
    await harness.wait_until_started(1)
    shared = [harness.reload.begin(cause) for cause in (ReloadCause.SIGNAL, ReloadCause.FILES, ReloadCause.REQUEST)]
    assert {reload.id for reload in shared} == {shared[0].id}
    assert shared[0].id != first.id
    assert shared[2].cause is ReloadCause.SIGNAL
    assert harness.reloader.begun == 1
    harness.reloader.open.set()
    await harness.wait_until_ended(shared[0].id)
    assert (harness.reloader.begun, harness.reloader.at_once) == (2, 1)
    assert [logged.id for logged, _ in harness.log.records] == [first.id, shared[0].id]


async def test_requests_before_a_reload_starts_share_it(harness: Harness) -> None:
    """A reload that has not started yet sees every change that the requests know of."""
    reload_ids = {harness.reload.begin(ReloadCause.REQUEST).id for _ in range(10)}
    assert len(reload_ids) == 1
    await harness.wait_until_ended(reload_ids.pop())
    assert harness.reloader.begun == 1


async def test_request_after_last_reload_starts_another_one(harness: Harness) -> None:
    """A request does not get the result of a reload that ended before it."""
    first = await harness.wait_until_ended(harness.reload.begin(ReloadCause.REQUEST).id)
    await asyncio.sleep(0)  # the task of the first one ends
    second = await harness.wait_until_ended(harness.reload.begin(ReloadCause.SIGNAL).id)
    assert (first.id != second.id, second.state, harness.reloader.begun) == (True, ReloadState.DONE, 2)


async def test_unexpected_error_fails_only_its_reload(harness: Harness) -> None:
    """The error is logged, and the waiting reload runs and succeeds."""
    harness.reloader.error = error = RuntimeError("a defect")
    harness.reloader.open.clear()
    first = harness.reload.begin(ReloadCause.FILES)
    await harness.wait_until_started(1)
    second = harness.reload.begin(ReloadCause.REQUEST)
    harness.reloader.open.set()
    failed = await harness.wait_until_ended(first.id)
    assert (failed.state, failed.report, failed.ended_at) == (ReloadState.FAILED, None, NOW)
    assert (await harness.wait_until_ended(second.id)).state is ReloadState.DONE
    assert [logged.id for logged, result in harness.log.records if result is error] == [first.id]


async def test_only_last_results_are_kept(harness: Harness) -> None:
    """Memory does not grow with the number of reloads."""
    ids = [
        (await harness.wait_until_ended(harness.reload.begin(ReloadCause.REQUEST).id)).id
        for _ in range(RESULTS_KEPT + 2)
    ]
    assert [harness.reload.find(each) is not None for each in ids] == [False, False, *[True] * RESULTS_KEPT]
    assert harness.reload.find("0" * 32) is None


async def test_close_cancels_running_reload() -> None:
    """Close leaves the reload pending, without a result; closing without a reload does nothing."""
    harness = Harness()
    harness.reloader.open.clear()
    reload = harness.reload.begin(ReloadCause.REQUEST)
    await harness.wait_until_started(1)
    await harness.reload.close()
    assert harness.reload.find(reload.id) == reload
    assert harness.log.records == []
    await Harness().reload.close()


async def test_log_has_the_milliseconds_of_the_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that it waited for its turn."""
    harness, logged = Harness(), list[float]()
    monkeypatch.setattr(harness.log, "reloaded", lambda _reload, _report, duration_ms: logged.append(duration_ms))
    monkeypatch.setattr(reload_keys, "time", SimpleNamespace(perf_counter=iter((5.0, 7.5)).__next__))
    await harness.wait_until_ended(harness.reload.begin(ReloadCause.REQUEST).id)
    await harness.reload.close()
    assert logged == [2500.0]
