"""The queue of log lines, and the thread that writes them: code that logs never waits for the reader of the log.

* The thread takes everything that is queued and writes it in order, at most 64 KiB at a time. A write that fails
  (broken pipe, full disk) is repeated until it works.
* A line for which the queue has no room is dropped and counted; the count is reported when writing works again.
* Requests without a token cause lines, too. They must not fill the queue and so stop signing: audit lines may use the
  whole queue, all other lines the first half. Above three quarters new work is refused; the last quarter is for lines
  of work that has begun.
* If several processes write to one descriptor, each locks a file for some lines at a time, so that no line is torn.
* A forked child process has a copy of the queue and no thread: it writes nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

ROOM: Final = 8 << 20
"""Bytes of the queue. A reader may stop for seconds under full load before an audit line is lost."""
ROOM_FOR_WORK: Final = ROOM * 3 // 4
"""Above this, ``LogWriter.problem`` reports the queue as full."""
ROOM_FOR_OTHERS: Final = ROOM // 2
STALLED_AFTER: Final = 2.0
"""Seconds without progress after which a reader has stopped. Signing goes on meanwhile, so this time must be short."""
FLUSH_WITHIN: Final = 2.0
"""Seconds for the last lines at the end of the process."""

_LONGEST_WRITE: Final = 64 << 10  # a slow reader makes progress with each
_RETRY_SECONDS: Final = 0.2
_NEXT_TURN_SECONDS: Final = 0.0001  # or a process with many lines would lock again before the others wake up
_GATHER_SECONDS: Final = 0.01  # a wake-up costs more than queueing a line, and interrupts the event loop


class LogWriter:
    """Writes lines to a file descriptor.

    Args:
        descriptor: stays open; blocking or not.
        report_lost: called by the thread with the number of dropped lines; it logs that, however full the queue is.
        lock: the descriptor of a file that all processes lock which write to ``descriptor``, if there are several.
    """

    def __init__(self, descriptor: int, report_lost: Callable[[int], None], lock: int | None = None) -> None:
        self._descriptor: Final = descriptor
        self._lock_file: Final = lock
        self._report_lost: Final = report_lost
        self._lock: Final = threading.RLock()  # reentrant: the garbage collector may log while a line is queued
        self._changed: Final = threading.Condition(self._lock)
        self._lines: list[bytes] = []
        self._size = 0  # bytes that are queued or being written
        self._lost = 0
        self._progress_at = 0.0  # when bytes were last written, or a line came into the empty queue
        self._failure: str | None = None
        self._ends_at: float | None = None
        self._reader: Final = select.poll()
        self._reader.register(descriptor, 0)  # errors and hang-ups only
        self._thread: Final = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def queue(self, line: bytes, longest_queue: float = ROOM_FOR_OTHERS) -> None:
        """Queue one line if the queue then has at most ``longest_queue`` bytes. Never waits and never raises."""
        length = len(line)
        with self._lock:
            if self._size + length > longest_queue:
                self._lost += 1
                return
            was_empty = not self._size
            self._size += length  # no call before this, in which a line could be queued
            self._lines.append(line)
            if was_empty:
                self._progress_at = time.monotonic()
            if len(self._lines) == 1:
                self._changed.notify()

    def problem(self) -> str | None:
        """Return why lines cannot be written now, or ``None``. Only one thread may call it: it polls without a lock."""
        if self._failure is not None:
            return f"The log cannot be written: {self._failure}."
        if self._reader.poll(0):
            return "The log cannot be written: its reader is gone."
        if self._size and time.monotonic() - self._progress_at > STALLED_AFTER:
            or_worker = "" if self._lock_file is None else ", or another worker was stopped while it wrote"
            return f"The reader of the log has taken no lines for {STALLED_AFTER:g} s{or_worker}."
        return "The log is written too slowly: its queue is full." if self._size > ROOM_FOR_WORK else None

    def close(self, within: float = FLUSH_WITHIN) -> None:
        """Wait until all lines are written, for ``within`` seconds at most. Later lines are not written."""
        with self._lock:
            self._ends_at = time.monotonic() + within
            self._changed.notify()
        self._thread.join(within + 2 * _RETRY_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._lines:
                    if self._ends_at is not None:
                        return
                    self._changed.wait()
            time.sleep(_GATHER_SECONDS)
            with self._lock:
                lines, self._lines = self._lines, []
            data = b"".join(lines)
            lines.clear()
            start = 0
            while start < len(data):
                end = len(data) if self._lock_file is None else _end_of_turn(data, start)
                with self._turn(is_last=end == len(data)):
                    if not self._write_all(memoryview(data)[start:end]):
                        return
                start = end
            with self._lock:
                lost, self._lost = self._lost, 0
            if lost:
                self._report_lost(lost)

    @contextmanager
    def _turn(self, *, is_last: bool) -> Iterator[None]:
        """Keep other processes from writing. The kernel ends the turn of a process that dies."""
        if self._lock_file is None:
            yield
            return
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)
        if not is_last:
            time.sleep(_NEXT_TURN_SECONDS)

    def _write_all(self, lines: memoryview) -> bool:
        """Return whether there was time to write all lines."""
        while lines:
            if self._ends_at is not None and time.monotonic() > self._ends_at:
                return False
            lines = lines[self._write(lines) :]
        return True

    def _write(self, lines: memoryview) -> int:
        """Return how many bytes were written; wait a little after a failure."""
        try:
            written = os.write(self._descriptor, lines[:_LONGEST_WRITE])
        except BlockingIOError:  # the pipe is non-blocking and full
            writable = select.poll()
            writable.register(self._descriptor, select.POLLOUT)
            writable.poll(_RETRY_SECONDS * 1000)
            return 0
        except OSError as error:
            self._failure = error.strerror
            time.sleep(_RETRY_SECONDS)
            return 0
        with self._lock:
            self._size -= written
            self._progress_at = time.monotonic()
            self._failure = None
        return written


def _end_of_turn(data: bytes, start: int) -> int:
    """Return where the lines of a turn end: a pipe takes so many bytes whole, also from a process that is killed."""
    limit = start + select.PIPE_BUF
    return (data.rfind(b"\n", start, limit) + 1) or (data.find(b"\n", limit) + 1) or len(data)
