"""Polls the files behind the keys and reports when they have changed.

* The key URIs name the files; see ``KeyUri.files``. They need not exist.
* A file is compared by device, inode, size and times; its content is not read. Symlinks are followed, so a Kubernetes
  secret update, which replaces the ``..data`` link, is noticed. Directories are watched one level deep.
* A change counts only when two polls in a row see the same files. Otherwise a file that is still being written would
  be loaded broken.
* Polling runs on daemon threads: a mount that hangs stops the watch, not the service, nor the end of the process.
* inotify would be faster, but misses network mounts and replaced ``..data`` directories.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from signer.adapters.daemon_thread import run_on_daemon_thread
from signer.adapters.keys.key_uri import KeyUri

_STABLE_AFTER_SECONDS: Final = 1.0

Snapshot = tuple[tuple[str, tuple[int, ...] | None], ...]
"""Each path with its file's identity, or ``None`` if there is no file."""


def watched_files(uris: Iterable[str]) -> Sequence[Path]:
    """Return the files and directories that key URIs name, whether they exist or not.

    Raises:
        KeyUriInvalid: a URI cannot be parsed.
    """
    return list(dict.fromkeys(path for uri in uris for path in KeyUri.parse(uri).files()))


def take_snapshot(paths: Iterable[Path]) -> Snapshot:
    """Return the present state of files and of the files in directories; blocking.

    A path that cannot be read counts as missing.
    """
    seen: list[tuple[str, tuple[int, ...] | None]] = []
    for path in paths:
        seen.append((str(path), _file_identity(path)))
        try:
            names = sorted(entry.name for entry in path.iterdir())
        except OSError:
            continue
        seen += [(name, _file_identity(path / name)) for name in names if not name.startswith(".")]
    return tuple(seen)


def _file_identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class FileWatch:
    """Calls ``on_change`` when the watched files have changed."""

    def __init__(self, paths: Sequence[Path], interval: float, on_change: Callable[[], None]) -> None:
        """Create the watch, which polls every ``interval`` seconds; ``run`` starts it."""
        self._paths = paths
        self._interval = interval
        self._on_change = on_change
        self._known: Snapshot | None = None

    async def remember_current_files(self) -> None:
        """Store the present state as known. Call it before the files are loaded, so that no change is missed."""
        self._known = await self._look()

    async def run(self) -> None:
        """Watch until cancelled."""
        if self._known is None:
            await self.remember_current_files()
        last = self._known
        while True:
            is_unchanged = last == self._known
            await asyncio.sleep(self._interval if is_unchanged else min(self._interval, _STABLE_AFTER_SECONDS))
            seen = await self._look()
            if seen == last and not is_unchanged:
                self._known = seen
                self._on_change()
            last = seen

    async def _look(self) -> Snapshot:
        return await run_on_daemon_thread(partial(take_snapshot, self._paths), "watch-key-files")
