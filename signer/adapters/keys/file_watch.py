"""Notices that the files behind the keys have changed, by looking at them every few seconds.

* **What is looked at** follows from the key URIs alone: the path, where there is such a file or directory, and every
  parameter that names a file: ``…_file``, ``…_dir`` and RFC 7512's ``pin-source``. A backend whose parameters are named
  like that is watched without a word of its own.
* **What is seen of a file** is which one it is (device and inode) and when it changed; its content is not read.
  Symlinks are followed, so it is noticed when Kubernetes turns ``..data`` elsewhere, for ``owner.json``, which leads
  to ``..data/owner.json``, is then another file. Of a directory its own files are seen, not those of directories in it.
* **A change counts once it stands still:** two looks in a row have to find the same. A file that is still being written
  would be read as a broken one, and its key would be gone until the next look.
* Looking asks the file system about each file, on a thread: a mount that hangs stops the watch, not the service.
* inotify would be quicker and see less: neither network mounts nor a ``..data`` whose directory was removed tell it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from signer.adapters.keys.key_uri import KeyUri

_FILE_SUFFIXES: Final = ("_file", "_dir")
_PIN_SOURCE: Final = "pin-source"
_FILE_SCHEME: Final = "file:"
_STANDS_STILL_SECONDS: Final = 1.0

Fingerprint = tuple[tuple[str, tuple[int, ...] | None], ...]
"""What was seen: each path, and what tells its file from another one, or ``None`` where there is none."""


def files_of(uris: Iterable[str]) -> Sequence[Path]:
    """Name the files and directories that key URIs speak of, whether they are there or not.

    Raises:
        KeyUriInvalid: one cannot be read.
    """
    found: dict[Path, None] = {}
    for uri in map(KeyUri.parse, uris):
        texts = [unquote(uri.path)]
        texts += [value for name, value in uri.query.items() if name.endswith(_FILE_SUFFIXES) or name == _PIN_SOURCE]
        for text in texts:
            name = text.removeprefix(_FILE_SCHEME)
            if name and "\x00" not in name:
                found[Path(name)] = None
    return list(found)


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """Look at files, and at what directories hold; blocking. What cannot be looked at is seen as not there."""
    seen: list[tuple[str, tuple[int, ...] | None]] = []
    for path in paths:
        seen.append((str(path), _look(path)))
        try:
            names = sorted(entry.name for entry in path.iterdir())
        except OSError:  # no directory, or none that we may read
            continue
        seen += [(name, _look(path / name)) for name in names if not name.startswith(".")]
    return tuple(seen)


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class FileWatch:
    """Calls ``changed`` when the files are others than they were."""

    def __init__(self, paths: Sequence[Path], every: float, changed: Callable[[], None]) -> None:
        """Take what to watch; ``run`` watches.

        Args:
            paths: files and directories; they need not be there.
            every: seconds between two looks.
            changed: called on the event loop; what it does about it is its own affair.
        """
        self._paths = paths
        self._every = every
        self._changed = changed
        self._known: Fingerprint | None = None

    async def look(self) -> None:
        """Take what is there now as known. Do it before the files are read, lest a change in between is missed."""
        self._known = await asyncio.to_thread(fingerprint, self._paths)

    async def run(self) -> None:
        """Watch until cancelled."""
        if self._known is None:
            await self.look()
        last = self._known
        while True:
            calm = last == self._known
            await asyncio.sleep(self._every if calm else min(self._every, _STANDS_STILL_SECONDS))
            seen = await asyncio.to_thread(fingerprint, self._paths)
            if seen == last and not calm:
                self._known = seen
                self._changed()
            last = seen
