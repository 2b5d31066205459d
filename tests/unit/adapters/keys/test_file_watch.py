"""The watch over files: what it looks at, and what it takes for a change, with real files and real symlinks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signer.adapters.keys import file_watch
from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.file_watch import FileWatch, Snapshot, take_snapshot, watched_files
from tests.support.kubernetes_mounts import as_kubernetes_does

QUICK = 0.01


@asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Watch; gives what waits until so many changes have been told, and sees that no more are."""
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


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("keystore:/run/keys?password_file=/run/pw%20d", ["/run/keys", "/run/pw d"]),
        ("keystore:keys?password_dir=/run/pw", ["keys", "/run/pw"]),
        ("hd:/seed.json?password_file=/pw&indexes_file=/list&path=m/44h/60h/0h/0", ["/seed.json", "/pw", "/list"]),
        ("pkcs11:token=t?module-path=/lib/p.so&pin-source=file:/run/pin", ["token=t", "/run/pin"]),
        ("awskms:alias/owner?region=eu-west-1", ["alias/owner"]),
    ],
)
def test_what_key_uris_name_as_files_is_watched(uri: str, files: list[str]) -> None:
    """The path, and parameters that are named like files; what is none of them is never there, so it never changes."""
    assert [str(path) for path in watched_files([uri, uri])] == files


def test_a_path_that_is_none_is_not_watched() -> None:
    """An empty path, and one with a NUL, name nothing; what is no key URI is an error."""
    assert list(watched_files(["awskms:?tag=a", "keystore:%00"])) == []
    with pytest.raises(KeyUriInvalid):
        watched_files(["no uri"])


def test_a_fingerprint_knows_what_it_cannot_see(tmp_path: Path) -> None:
    """What is not there is seen as not there, and so is a symlink that leads nowhere."""
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / ".hidden").write_text("")
    assert take_snapshot([tmp_path / "absent"]) == ((str(tmp_path / "absent"), None),)
    assert [(name, seen is None) for name, seen in take_snapshot([tmp_path])] == [
        (str(tmp_path), False),
        ("dangling", True),
    ]


async def test_turning_data_elsewhere_is_one_change(tmp_path: Path) -> None:
    """Kubernetes turns ``..data``: the names stay, and the files behind them are others."""
    mount = tmp_path / "keys"
    as_kubernetes_does(mount, "..2026_1", owner="one")
    async with watching(mount) as told_times:
        await told_times(0)
        as_kubernetes_does(mount, "..2026_2", owner="two")
        await told_times(1)
        as_kubernetes_does(mount, "..2026_3", owner="two", another="three")
        await told_times(2)
        as_kubernetes_does(mount, "..2026_4", another="three")
        await told_times(3)


async def test_a_single_file_behind_data_is_noticed(tmp_path: Path) -> None:
    """A URI that names one file, or a password beside the keys, is followed through its symlinks."""
    mount = tmp_path / "password"
    as_kubernetes_does(mount, "..2026_1", password="one")
    async with watching(mount / "password") as told_times:
        as_kubernetes_does(mount, "..2026_2", password="two")
        await told_times(1)


async def test_a_file_that_comes_changes_and_goes(tmp_path: Path) -> None:
    """So is a file that was not there, one that is written over, and one that is removed."""
    file = tmp_path / "seed.json"
    async with watching(file) as told_times:
        file.write_text("one")
        await told_times(1)
        file.write_text("another one")
        await told_times(2)
        file.unlink()
        await told_times(3)


async def test_a_file_that_is_still_being_written_is_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as each look finds something else, nothing is told."""
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
        while looks < 1 + writes + 5:  # noqa: ASYNC110 - the file system tells nobody
            await asyncio.sleep(QUICK)
    running.cancel()
    assert told_after == [1 + writes + 1]


async def test_what_changed_before_the_watch_ran_is_told(tmp_path: Path) -> None:
    """The first look is taken before the keys are read, so nothing is missed in between."""
    changed = asyncio.Event()
    watch = FileWatch([tmp_path], QUICK, changed.set)
    await watch.remember_current_files()
    (tmp_path / "owner.json").write_text("{}")
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        await changed.wait()
    running.cancel()


async def test_without_a_first_look_the_watch_begins_with_what_is_there(tmp_path: Path) -> None:
    """Nothing is told of what was there before it ran."""
    (tmp_path / "owner.json").write_text("{}")
    told: list[None] = []
    running = asyncio.create_task(FileWatch([tmp_path], QUICK, lambda: told.append(None)).run())
    await asyncio.sleep(10 * QUICK)
    running.cancel()
    assert told == []
