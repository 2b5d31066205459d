"""A file whose mount hangs: a FIFO without a writer, which blocks each thread that opens it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HangingFile:
    """Stands in the place of a file."""

    def __init__(self, path: Path) -> None:
        """Replace the file by a FIFO."""
        self._path = path
        self._fifo = path.with_suffix(".fifo")
        os.mkfifo(self._fifo)
        path.unlink(missing_ok=True)
        path.symlink_to(self._fifo)

    def replace(self, text: str) -> None:
        """Put a file in the FIFO's place. The threads that have opened the FIFO still hang."""
        self._path.unlink()
        self._path.write_text(text)

    def release(self) -> None:
        """Let the threads that hang now read an empty file."""
        try:
            writer = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # none hangs
            return
        os.close(writer)


@contextmanager
def hanging_file(path: Path) -> Iterator[HangingFile]:
    """Let a file hang; the threads that were started in the context have ended after it."""
    before = set(threading.enumerate())
    file = HangingFile(path)
    try:
        yield file
    finally:
        for thread in set(threading.enumerate()) - before:
            while thread.daemon and thread.is_alive():
                file.release()
                thread.join(0.01)
