"""The composition root's room for keys: what settings become, and what is told of slow starts and backends' health."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.adapters.keys.backend import BackendResources, KeyBackendError, LoadedKeys, Progress
from signer.adapters.keys.in_memory_key import InMemoryKey
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.opening_pool import available_cores
from signer.adapters.keys.settings import KeysSettings
from signer.bootstrap import keys as bootstrap_keys
from signer.bootstrap.keys import Keys, open_keys
from tests.contract.key_backends.doubles import GivenBackend
from tests.support.fakes.clock import FakeClock
from tests.support.log_lines import LogLines, captured_logs

CLOCK = FakeClock(datetime(2026, 11, 22, 12, tzinfo=UTC))
KEY = InMemoryKey(b"\x11" * 32, "given:1")
UNWATCHED: dict[str, Any] = {"watch_every": timedelta(0)}


class MoodyBackend(GivenBackend):
    """Loads once it may, says how it is, and says, as a token does, that it has been closed."""

    def __init__(self, uri: str, resources: BackendResources) -> None:
        super().__init__([KEY], uri=uri)
        self.resources = resources
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def load(self, progress: Progress) -> LoadedKeys:
        """Say that one of two is done, and wait."""
        progress(1, 2)
        await self.may_load.wait()
        return await super().load(progress)

    async def close(self) -> None:
        """Say so."""
        self.say("has been closed")

    def say(self, problem: str | None) -> None:
        """Tell how it is."""
        self.resources.health_changed(self.uri, problem)


class Maker:
    """Makes backends, and keeps them."""

    def __init__(self) -> None:
        self.made: list[MoodyBackend] = []

    def __call__(self, uri: str, resources: BackendResources) -> MoodyBackend:
        """Make one."""
        self.made.append(MoodyBackend(uri, resources))
        return self.made[-1]


@pytest.fixture
def log() -> Iterator[LogLines]:
    """What is written."""
    with captured_logs() as lines:
        yield lines


async def test_a_long_start_is_told_every_few_seconds(log: LogLines, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a backend says nothing, the log says how far the keys are; and at the end what there is."""
    monkeypatch.setattr(bootstrap_keys, "PROGRESS_LOG_INTERVAL", 0.01)
    make, seen = Maker(), []
    async with open_keys(KeysSettings(uris=("moody:a",), **UNWATCHED), CLOCK, make_backend=make) as keys:
        make.made[0].may_load.clear()
        loading = asyncio.create_task(keys.load(lambda done, total: seen.append((done, total))))
        async with asyncio.timeout(10):
            while len(log.of("keys.loading")) < 3:  # noqa: ASYNC110 - a stream tells nobody
                await asyncio.sleep(0.01)
        make.made[0].may_load.set()
        await loading
        told = len(log.of("keys.loading"))
        await asyncio.sleep(0.05)
        assert len(log.of("keys.loading")) == told
    assert {(line["loaded"], line["expected"]) for line in log.of("keys.loading")} == {(1, 2)}
    (loaded,) = log.of("keys.loaded")
    assert {name: loaded[name] for name in ("loaded", "missing", "failed")} == {"loaded": 1, "missing": 0, "failed": 0}
    assert seen == [(1, 2), (0, 1), (1, 1)]


async def test_what_cannot_be_loaded_has_a_line_each(log: LogLines) -> None:
    """A key's reason stands in the log; a backend that cannot start is an error for whoever starts the service."""
    make = Maker()
    async with open_keys(KeysSettings(uris=("moody:a",), **UNWATCHED), CLOCK, make_backend=make) as keys:
        make.made[0].failures = {"moody:b": "is broken"}
        await keys.load()
    assert [(line["key_uri"], line["reason"]) for line in log.of("keys.failed")] == [("moody:b", "is broken")]
    async with open_keys(KeysSettings(uris=("moody:a",), **UNWATCHED), CLOCK, make_backend=make) as keys:
        make.made[1].error = KeyBackendError("is locked")
        with pytest.raises(KeyBackendError, match="is locked"):
            await keys.load()
    assert len(log.of("keys.loaded")) == 1


async def test_a_backend_that_stops_working_is_told_and_makes_the_ring_unready(log: LogLines) -> None:
    """One line when it is down, with why, and one when it is up; a closed one at the end is no outage."""
    make = Maker()
    async with open_keys(
        KeysSettings(uris=("moody:a", "moody:b"), duplicates="first"), CLOCK, make_backend=make
    ) as keys:
        await keys.load()
        assert keys.ring.status().is_ready
        one, another = make.made
        one.say(None)  # it was not down
        one.say("has been taken out")
        assert dict(keys.ring.status().failed) == {"moody:a": "has been taken out"}
        assert not keys.ring.status().is_ready
        another.say(None)
        one.say("hangs")
        assert dict(keys.ring.status().failed) == {"moody:a": "hangs"}
        one.say(None)
        assert keys.ring.status().is_ready
    assert [(line["key_uri"], line["reason"]) for line in log.of("keys.backend_down")] == [
        ("moody:a", "has been taken out"),
        ("moody:a", "hangs"),
    ]
    assert [line["key_uri"] for line in log.of("keys.backend_up")] == ["moody:a"]


async def test_settings_bound_the_opening(log: LogLines) -> None:
    """``open_memory`` is MiB for all that are being opened; ``open_threads`` 0 means one for each core."""
    for settings, memory, threads in (
        (KeysSettings(uris=("moody:a",)), 1 << 30, available_cores()),
        (KeysSettings(uris=("moody:a",), open_memory=256, open_threads=3), 256 << 20, 3),
    ):
        make = Maker()
        async with open_keys(settings, CLOCK, make_backend=make):
            opening = make.made[0].resources.opening
            assert (opening.memory_budget, opening.threads) == (memory, threads)


async def test_a_keystore_over_the_budget_is_refused_with_what_to_do(log: LogLines, tmp_path: Path) -> None:
    """The bound of the settings reaches the backend."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "password").write_text("x")
    write_keystore(tmp_path / "keys", b"\x11" * 32, b"x", work=4096)
    uri = f"keystore:{tmp_path / 'keys'}?password_file={tmp_path / 'password'}"
    async with open_keys(KeysSettings(uris=(uri,), open_memory=1), CLOCK) as keys:
        await keys.load()
        (reason,) = keys.ring.status().failed.values()
        assert "needs 4 MiB to open and the budget is 1 MiB" in reason


async def test_the_watch_reloads_when_files_change_and_is_off_where_it_is_zero(log: LogLines, tmp_path: Path) -> None:
    """A changed file makes a reload of cause ``files``; with ``watch_every = 0`` nothing watches."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "password").write_text("x")
    uri = f"keystore:{tmp_path / 'keys'}?password_file={tmp_path / 'password'}"

    async def reloads(keys: Keys) -> list[str]:
        await keys.load()
        watching = asyncio.create_task(keys.watch())
        write_keystore(tmp_path / "keys", None, b"x", work=2)
        async with asyncio.timeout(20):
            while not (watching.done() or log.of("keys.reloaded")):  # noqa: ASYNC110 - a stream tells nobody
                await asyncio.sleep(0.01)
        watching.cancel()
        return [line["cause"] for line in log.of("keys.reloaded")]

    off = KeysSettings(uris=(uri,), **UNWATCHED)
    async with open_keys(off, CLOCK) as keys:
        assert await reloads(keys) == []
    async with open_keys(off.model_copy(update={"watch_every": timedelta(milliseconds=10)}), CLOCK) as keys:
        assert await reloads(keys) == ["files"]
