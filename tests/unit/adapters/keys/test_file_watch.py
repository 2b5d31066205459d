"""The file watch over real files and symlinks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signer.adapters.keys import file_watch
from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.file_watch import FileWatch, Snapshot, take_snapshot, watched_files
from tests.support.kubernetes_mounts import update_mounted_secret

QUICK = 0.01


@asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Watch files; yields a function that waits for a number of changes and checks that no more follow."""
    told = 0

    def changed() -> None:
        nonlocal told
        told += 1

    async def told_times(count: int) -> None:
        async with asyncio.timeout(20):
            while told < count:  # noqa: ASYNC110 - the watch tells once only
                await asyncio.sleep(QUICK)
        await asyncio.sleep(10 * QUICK)
        assert told == count

    watch = FileWatch(paths, QUICK, changed)
    await watch.remember_current_files()
    running = asyncio.create_task(watch.run())
    try:
        yield told_times
    finally:
        running.cancel()


def test_files_named_by_key_uris_are_watched_once() -> None:
    """The files of all URIs; text that is not a key URI is an error."""
    keystore, seed = "keystore:/run/keys?password_file=/run/pw", "hd:/seed.json?password_file=/run/pw"
    uris = [keystore, seed, "pkcs11:token=t?module-path=/p.so", "awskms:alias/owner"]
    assert [str(path) for path in watched_files(uris)] == ["/run/keys", "/run/pw", "/seed.json"]
    with pytest.raises(KeyUriInvalid):
        watched_files(["no uri"])


def test_snapshot_records_missing_files(tmp_path: Path) -> None:
    """A missing file, and a dangling symlink, are recorded as missing."""
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / ".hidden").write_text("")
    assert take_snapshot([tmp_path / "absent"]) == ((str(tmp_path / "absent"), None),)
    assert [(name, seen is None) for name, seen in take_snapshot([tmp_path])] == [
        (str(tmp_path), False),
        ("dangling", True),
    ]


async def test_kubernetes_update_is_one_change(tmp_path: Path) -> None:
    """Kubernetes replaces ``..data``: the names stay, the files behind them change."""
    mount = tmp_path / "keys"
    update_mounted_secret(mount, "..2026_1", owner="one")
    async with watching(mount) as told_times:
        await told_times(0)
        update_mounted_secret(mount, "..2026_2", owner="two")
        await told_times(1)
        update_mounted_secret(mount, "..2026_3", owner="two", another="three")
        await told_times(2)
        update_mounted_secret(mount, "..2026_4", another="three")
        await told_times(3)


async def test_change_of_single_file_behind_symlinks_is_noticed(tmp_path: Path) -> None:
    """A URI that names one file, or a password, is followed through its symlinks."""
    mount = tmp_path / "password"
    update_mounted_secret(mount, "..2026_1", password="one")
    async with watching(mount / "password") as told_times:
        update_mounted_secret(mount, "..2026_2", password="two")
        await told_times(1)


async def test_created_changed_and_removed_file_is_noticed(tmp_path: Path) -> None:
    """Each is one change."""
    file = tmp_path / "seed.json"
    async with watching(file) as told_times:
        file.write_text("one")
        await told_times(1)
        file.write_text("another one")
        await told_times(2)
        file.unlink()
        await told_times(3)


async def test_file_still_being_written_is_not_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is reported while each poll sees something else."""
    looks = 0
    writes = 5
    file = tmp_path / "owner.json"

    def look(paths: Iterable[Path]) -> Snapshot:
        nonlocal looks
        looks += 1
        if 1 < looks <= 1 + writes:
            with file.open("a") as half:
                half.write("more")
        return take_snapshot(paths)

    monkeypatch.setattr(file_watch, "take_snapshot", look)
    told_after: list[int] = []
    running = asyncio.create_task(FileWatch([tmp_path], QUICK, lambda: told_after.append(looks)).run())
    async with asyncio.timeout(20):
        while looks < 1 + writes + 5:  # noqa: ASYNC110 - the file system sends no signal
            await asyncio.sleep(QUICK)
    running.cancel()
    assert told_after == [1 + writes + 1]


async def test_change_between_first_snapshot_and_run_is_noticed(tmp_path: Path) -> None:
    """The snapshot is taken before the keys are loaded, so no change is missed."""
    changed = asyncio.Event()
    watch = FileWatch([tmp_path], QUICK, changed.set)
    await watch.remember_current_files()
    (tmp_path / "owner.json").write_text("{}")
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        await changed.wait()
    running.cancel()


async def test_watch_without_first_snapshot_reports_no_old_files(tmp_path: Path) -> None:
    """Files that existed before it ran are not a change."""
    (tmp_path / "owner.json").write_text("{}")
    told: list[None] = []
    running = asyncio.create_task(FileWatch([tmp_path], QUICK, lambda: told.append(None)).run())
    await asyncio.sleep(10 * QUICK)
    running.cancel()
    assert told == []


async def test_mount_that_hangs_does_not_keep_the_process_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that hangs is a daemon, and the watch can be cancelled."""
    hanging: list[threading.Thread] = []
    works = threading.Event()

    def look(paths: Iterable[Path]) -> Snapshot:
        hanging.append(threading.current_thread())
        works.wait()
        return take_snapshot(paths)

    monkeypatch.setattr(file_watch, "take_snapshot", look)
    running = asyncio.create_task(FileWatch([tmp_path], QUICK, lambda: None).run())
    async with asyncio.timeout(20):
        while not hanging:  # noqa: ASYNC110 - a thread sends no event
            await asyncio.sleep(QUICK)
    running.cancel()
    await asyncio.wait({running}, timeout=20)
    assert running.cancelled()
    assert [thread.daemon for thread in hanging] == [True]
    works.set()
    hanging[0].join()
