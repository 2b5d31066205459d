"""Opening keys from the settings: limits, progress, health of backends, file watch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.adapters.keys.backend import BackendResources, KeyBackendError, LoadedKeys, Problem, Progress
from signer.adapters.keys.in_memory_key import InMemoryKey
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.opening_pool import available_cores
from signer.adapters.keys.settings import KeysSettings
from signer.application.ports import KeyFailure
from signer.bootstrap import keys as bootstrap_keys
from signer.bootstrap.keys import Keys, open_keys
from tests.contract.key_backends.doubles import GivenBackend
from tests.support.fakes.clock import FakeClock
from tests.support.log_lines import LogLines, captured_logs

CLOCK = FakeClock(datetime(2026, 11, 22, 12, tzinfo=UTC))
KEY = InMemoryKey(b"\x11" * 32, "given:1")
UNWATCHED: dict[str, Any] = {"watch_every": timedelta(0)}


class ReportingBackend(GivenBackend):
    """Loads when it may, and reports its health; like a token, it reports its own close."""

    def __init__(self, uri: str, resources: BackendResources) -> None:
        super().__init__([KEY], uri=uri)
        self.resources = resources
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def load(self, progress: Progress) -> LoadedKeys:
        """Report that one of two keys is done, and wait."""
        progress(1, 2)
        await self.may_load.wait()
        return await super().load(progress)

    async def close(self) -> None:
        """Report it."""
        self.report("has been closed")

    def report(self, problem: str | None) -> None:
        """Report the backend's health."""
        self.resources.health_changed(self.uri, None if problem is None else Problem("error", problem))


class BackendFactory:
    """Creates backends and keeps them."""

    def __init__(self) -> None:
        self.made: list[ReportingBackend] = []

    def __call__(self, uri: str, resources: BackendResources) -> ReportingBackend:
        """Create one."""
        self.made.append(ReportingBackend(uri, resources))
        return self.made[-1]


@pytest.fixture
def log() -> Iterator[LogLines]:
    """The captured log lines."""
    with captured_logs() as lines:
        yield lines


def _progress(log: LogLines) -> list[tuple[int, int]]:
    return [(line["loaded"], line["expected"]) for line in log.of("keys.loading")]


async def test_progress_of_slow_load_is_logged_at_intervals(log: LogLines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line says what was loaded."""
    monkeypatch.setattr(bootstrap_keys, "PROGRESS_LOG_INTERVAL", 0.01)
    make, seen = BackendFactory(), []
    async with open_keys(KeysSettings(uris=("test:a",), **UNWATCHED), CLOCK, make_backend=make) as keys:
        make.made[0].may_load.clear()
        loading = asyncio.create_task(keys.load(lambda done, total: seen.append((done, total))))
        async with asyncio.timeout(10):
            while _progress(log).count((1, 2)) < 3:  # noqa: ASYNC110 - a stream sends no signal
                await asyncio.sleep(0.01)
        make.made[0].may_load.set()
        await loading
        written = len(_progress(log))
        await asyncio.sleep(0.05)
        assert len(_progress(log)) == written
    assert set(_progress(log)) <= {(0, 0), *seen}
    (loaded,) = log.of("keys.loaded")
    assert {name: loaded[name] for name in ("loaded", "missing", "failed")} == {"loaded": 1, "missing": 0, "failed": 0}
    assert seen == [(1, 2), (0, 1), (1, 1)]


async def test_each_key_that_cannot_be_loaded_is_logged(log: LogLines) -> None:
    """With its cause, also if the backend knows none. A backend that cannot start raises an error."""
    make = BackendFactory()
    async with open_keys(KeysSettings(uris=("test:a",), **UNWATCHED), CLOCK, make_backend=make) as keys:
        make.made[0].failures = {"test:b": "is broken", "test:c": KeyFailure("is another's", "authentication")}
        await keys.load()
    failed = [(line["key_uri"], line["cause"], line["reason"]) for line in log.of("keys.failed")]
    assert failed == [("test:b", "error", "is broken"), ("test:c", "authentication", "is another's")]
    async with open_keys(KeysSettings(uris=("test:a",), **UNWATCHED), CLOCK, make_backend=make) as keys:
        make.made[1].error = KeyBackendError("is locked")
        with pytest.raises(KeyBackendError, match="is locked"):
            await keys.load()
    assert len(log.of("keys.loaded")) == 1


async def test_failed_backend_is_logged_and_ring_is_not_ready(log: LogLines) -> None:
    """One log line when it fails and one when it recovers, with the last reason; a close is not a failure."""
    make = BackendFactory()
    async with open_keys(KeysSettings(uris=("test:a", "test:b"), duplicates="first"), CLOCK, make_backend=make) as keys:
        await keys.load()
        assert keys.ring.status().is_ready
        one, another = make.made
        one.report(None)  # it was not down
        one.report("has been taken out")
        assert dict(keys.ring.status().failed) == {"test:a": "has been taken out"}
        assert not keys.ring.status().is_ready
        another.report(None)
        one.report("hangs")
        assert dict(keys.ring.status().failed) == {"test:a": "hangs"}
        one.report(None)
        assert keys.ring.status().is_ready
    assert [(line["key_uri"], line["reason"]) for line in log.of("keys.backend_down")] == [
        ("test:a", "has been taken out"),
    ]
    assert [(line["key_uri"], line["reason"]) for line in log.of("keys.backend_up")] == [("test:a", "hangs")]


async def test_settings_limit_the_opening_pool(log: LogLines) -> None:
    """``open_memory`` is MiB for all keys being opened; ``open_threads`` 0 means one for each core."""
    for settings, memory, threads in (
        (KeysSettings(uris=("test:a",)), 1 << 30, available_cores()),
        (KeysSettings(uris=("test:a",), open_memory=256, open_threads=3), 256 << 20, 3),
    ):
        make = BackendFactory()
        async with open_keys(settings, CLOCK, make_backend=make):
            opening = make.made[0].resources.opening
            assert (opening.memory_budget, opening.threads) == (memory, threads)


async def test_keystore_beyond_memory_budget_is_refused(log: LogLines, tmp_path: Path) -> None:
    """The limit of the settings reaches the backend."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "password").write_text("x")
    write_keystore(tmp_path / "keys", b"\x11" * 32, b"x", work=4096)
    uri = f"keystore:{tmp_path / 'keys'}?password_file={tmp_path / 'password'}"
    async with open_keys(KeysSettings(uris=(uri,), open_memory=1), CLOCK) as keys:
        await keys.load()
        (reason,) = keys.ring.status().failed.values()
        assert "needs 4 MiB to open and the budget is 1 MiB" in reason


async def test_changed_file_starts_reload_unless_watch_is_off(log: LogLines, tmp_path: Path) -> None:
    """The cause is ``files``; with ``watch_every = 0`` nothing is watched."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "password").write_text("x")
    uri = f"keystore:{tmp_path / 'keys'}?password_file={tmp_path / 'password'}"

    async def reloads(keys: Keys) -> list[str]:
        await keys.load()
        watching = asyncio.create_task(keys.watch())
        write_keystore(tmp_path / "keys", None, b"x", work=2)
        async with asyncio.timeout(20):
            while not (watching.done() or log.of("keys.reloaded")):  # noqa: ASYNC110 - a stream sends no signal
                await asyncio.sleep(0.01)
        watching.cancel()
        return [line["cause"] for line in log.of("keys.reloaded")]

    off = KeysSettings(uris=(uri,), **UNWATCHED)
    async with open_keys(off, CLOCK) as keys:
        assert await reloads(keys) == []
    async with open_keys(off.model_copy(update={"watch_every": timedelta(milliseconds=10)}), CLOCK) as keys:
        assert await reloads(keys) == ["files"]
