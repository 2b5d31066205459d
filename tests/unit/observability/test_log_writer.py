"""The log writer over real pipes and files: code that logs never waits, and no line is lost without a count."""

from __future__ import annotations

import fcntl
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from signer.observability import log_writer
from signer.observability.log_writer import ROOM, ROOM_FOR_OTHERS, ROOM_FOR_WORK, LogWriter

LINE = b"x" * 1023 + b"\n"
TOO_MANY = 2 * ROOM // len(LINE)


class Pipe:
    """A pipe whose reader reads when the test says so, and a writer for its other end."""

    def __init__(self) -> None:
        self.reads_from, self.writes_to = os.pipe()
        self.has_reported = False
        self.writer = LogWriter(self.writes_to, self._report_lost)

    def _report_lost(self, count: int) -> None:
        self.writer.queue(b"lost %d\n" % count, math.inf)
        self.has_reported = True

    def read_on(self) -> Callable[[], bytes]:
        """Read in a thread; the result waits for the end of the pipe."""
        parts: list[bytes] = []

        def read() -> None:
            while part := os.read(self.reads_from, 1 << 16):
                parts.append(part)

        thread = threading.Thread(target=read)
        thread.start()

        def text() -> bytes:
            self.writer.close(60)
            self.close_writing()
            thread.join()
            return b"".join(parts)

        return text

    def fill(self) -> None:
        """Fill the pipe, so that the writer's thread writes nothing from now on."""
        os.set_blocking(self.writes_to, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writes_to, b"x")
        os.set_blocking(self.writes_to, True)

    def close_reading(self) -> None:
        """Close the reader's end."""
        os.close(self.reads_from)
        self.reads_from = -1

    def close_writing(self) -> None:
        """Close the writer's end."""
        os.close(self.writes_to)
        self.writes_to = -1

    def close(self) -> None:
        """End the writer's thread and close both ends."""
        if self.reads_from != -1:
            self.close_reading()  # a write that waits for a reader fails now
        self.writer.close(0)
        if self.writes_to != -1:
            self.close_writing()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe without a reader yet."""
    opened = Pipe()
    yield opened
    opened.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


@contextmanager
def writing_to(path: Path | str) -> Iterator[tuple[LogWriter, int]]:
    """Open a file, and write lines to it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor, lambda _count: None)
    try:
        yield writer, descriptor
    finally:
        writer.close(0)
        os.close(descriptor)


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK])
def test_lines_arrive_complete_and_in_order(pipe: Pipe, flags: int) -> None:
    """So they do through a non-blocking pipe, which takes parts of lines."""
    fcntl.fcntl(pipe.writes_to, fcntl.F_SETFL, flags | fcntl.fcntl(pipe.writes_to, fcntl.F_GETFL))
    text = pipe.read_on()
    lines = [b"%d %s" % (number, LINE) for number in range(2000)]
    for number, line in enumerate(lines):
        pipe.writer.queue(line, ROOM if number % 3 else ROOM_FOR_OTHERS)
    assert text() == b"".join(lines)


def test_many_queued_lines_are_written_with_one_write(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    """The lines of a turn of the event loop share one system call."""
    writes: list[int] = []
    write = os.write

    def count(descriptor: int, data: bytes) -> int:
        if descriptor == pipe.writes_to:
            writes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", count)
    with pipe.writer._lock:  # the thread does not run in between
        for _ in range(50):
            pipe.writer.queue(b"a line\n")
    pipe.writer.close()
    assert writes == [350]


def test_stopped_reader_delays_no_line_and_every_lost_one_is_counted(
    monkeypatch: pytest.MonkeyPatch, pipe: Pipe
) -> None:
    """When the reader reads on, one line has the count of those that are missing before it."""
    monkeypatch.setattr(log_writer, "STALLED_AFTER", 0.05)
    for _ in range(TOO_MANY):
        pipe.writer.queue(LINE)  # would wait for ever if it waited for the reader
    wait_for(lambda: "has taken no lines" in (pipe.writer.problem() or ""))
    text = pipe.read_on()
    wait_for(lambda: pipe.writer.problem() is None)
    wait_for(lambda: pipe.has_reported and pipe.writer._size == 0)
    pipe.writer.queue(b"later\n")
    *lines, report, later = text().splitlines(keepends=True)
    assert set(lines) == {LINE}
    assert (report, later) == (b"lost %d\n" % (TOO_MANY - len(lines)), b"later\n")
    assert ROOM_FOR_OTHERS - len(LINE) < len(lines) * len(LINE) < ROOM


def test_other_lines_leave_room_for_the_audit_trail(pipe: Pipe) -> None:
    """Strangers fill their half, which stops nothing; the audit trail fills more, which stops new work first."""
    pipe.fill()
    for _ in range(TOO_MANY):
        pipe.writer.queue(LINE)
    assert "full" not in (pipe.writer.problem() or "")
    accepted = pipe.writer._size
    while pipe.writer._size <= ROOM_FOR_WORK:
        pipe.writer.queue(LINE, ROOM)
        accepted += len(LINE)
        assert pipe.writer._size == accepted
    assert pipe.writer.problem() is not None
    pipe.writer.queue(LINE, ROOM)
    assert pipe.writer._size == accepted + len(LINE)


def test_slow_reader_is_no_problem_while_it_reads(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    """Each part that it takes counts as progress."""
    monkeypatch.setattr(log_writer, "STALLED_AFTER", 5.0)
    for _ in range(1000):
        pipe.writer.queue(LINE)
    before = pipe.writer._progress_at
    for _ in range(10):
        os.read(pipe.reads_from, 1 << 16)
    wait_for(lambda: pipe.writer._progress_at > before)
    assert pipe.writer.problem() is None


def test_closed_pipe_is_a_problem_before_a_line_is_lost(pipe: Pipe) -> None:
    """The writer sees it without writing."""
    assert pipe.writer.problem() is None
    pipe.close_reading()
    assert pipe.writer.problem() == "The log cannot be written: its reader is gone."
    pipe.writer.queue(LINE)
    wait_for(lambda: pipe.writer.problem() == "The log cannot be written: Broken pipe.")


def test_lines_wait_for_the_next_reader_of_a_named_pipe(tmp_path: Path) -> None:
    """A log collector was restarted."""
    os.mkfifo(tmp_path / "log")
    first = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with writing_to(tmp_path / "log") as (writer, _):
        os.close(first)
        writer.queue(LINE)
        wait_for(lambda: writer._failure is not None)
        second = os.open(tmp_path / "log", os.O_RDONLY)
        assert os.read(second, 1 << 16) == LINE
        wait_for(lambda: writer.problem() is None)
        os.close(second)


def test_full_disk_is_a_problem_until_there_is_space(tmp_path: Path) -> None:
    """The lines that were queued meanwhile are written then."""
    with writing_to("/dev/full") as (writer, descriptor):
        writer.queue(LINE)
        wait_for(lambda: writer.problem() == "The log cannot be written: No space left on device.")
        space = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(space, descriptor)
        os.close(space)
        writer.queue(LINE)
        wait_for(lambda: writer.problem() is None)
        writer.close()
        assert (tmp_path / "log").read_bytes() == 2 * LINE


def test_close_waits_only_so_long_for_a_stopped_reader(pipe: Pipe) -> None:
    """The process must end."""
    for _ in range(1000):
        pipe.writer.queue(LINE)
    started = time.monotonic()
    pipe.writer.close(0.1)
    assert time.monotonic() - started < 30
    assert pipe.writer._thread.is_alive()


def run_python(code: str, shell: str = 'exec "$@"') -> subprocess.CompletedProcess[bytes]:
    """Run a program that logs."""
    setting_up = """
import os, sys
from signer.observability import events
from signer.observability.logs import open_log
from signer.observability.settings import LoggingSettings
from signer.observability.writers import emit
"""
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-W", "ignore", "-c", setting_up + code],
        check=False,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise RuntimeError"])
def test_last_lines_of_a_process_that_ends_or_fails_are_written(ending: str) -> None:
    """Those of a drain, and those before a bug."""
    ended = run_python(f"""
with open_log(LoggingSettings()):
    for number in range(5000):
        emit(events.SERVICE_STOPPED, left=number)
    {ending}
""")
    assert ended.returncode in {1, 3}
    assert len(ended.stdout.splitlines()) == 5000


def test_format_of_production_loads_no_logging_library() -> None:
    """Structlog and rich are for the console only."""
    ended = run_python("""
with open_log(LoggingSettings()):
    emit(events.SERVICE_STOPPED, left=1)
print(*sys.modules, file=sys.stderr)
""")
    assert len(ended.stdout.splitlines()) == 1
    assert not {b"structlog", b"rich"} & set(ended.stderr.split())


def test_forked_child_writes_none_of_the_parents_lines() -> None:
    """It has a copy of the queue and no thread; its end does not wait."""
    ended = run_python("""
from signer.observability import log_writer
log_writer._GATHER_SECONDS = 0.5
with open_log(LoggingSettings()) as log:
    emit(events.SERVICE_STOPPED, left=1)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
""")
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 1)


def test_closed_standard_output_is_a_problem_from_the_start() -> None:
    """No other file may get its number, and with it the lines."""
    code = """
with open_log(LoggingSettings()) as log:
    emit(events.SERVICE_STOPPED, left=1)
    other = os.open(os.devnull, os.O_WRONLY)
    while log.problem() is None:
        pass
    print(other, log.problem(), file=sys.stderr)
"""
    ended = run_python(code, 'exec "$@" >&-')
    assert ended.stderr.endswith(b"The log cannot be written: Bad file descriptor.\n")
    assert not ended.stderr.startswith(b"1 ")


def test_line_that_is_queued_while_a_line_is_queued_is_written(pipe: Pipe) -> None:
    """The garbage collector may run, and log, at any moment: the lock is reentrant."""
    text = pipe.read_on()
    with pipe.writer._lock:
        pipe.writer.queue(LINE)
    with suppress(OSError):
        assert text() == LINE


def test_lines_of_two_processes_stay_whole_while_their_reader_is_slow() -> None:
    """Short lines, and lines that no pipe takes at once; both processes get their turns."""
    reads_from, writes_to = os.pipe()
    code = """
import os, sys
from signer.observability.log_writer import LogWriter
writer = LogWriter(1, lambda count: None, int(sys.argv[2]))
name = sys.argv[1].encode()
for number in range(600):
    writer.queue(b"%s %d %s\\n" % (name, number, name * (9000 if number % 10 == 0 else number)), 1 << 30)
os.write(1, b"ready\\n")
writer.close(60)
"""
    lock = os.memfd_create("lock", 0)
    fcntl.lockf(lock, fcntl.LOCK_EX)  # so that neither writes its lines before the other has lines, too
    command = [sys.executable, "-W", "ignore", "-c", code]
    writers = [subprocess.Popen([*command, name, str(lock)], stdout=writes_to, pass_fds=[lock]) for name in ("a", "b")]
    os.close(writes_to)
    assert [os.read(reads_from, len(b"ready\n")) for _ in writers] == [b"ready\n"] * 2
    os.close(lock)  # which ends our lock
    parts: list[bytes] = []
    while part := os.read(reads_from, 1 << 12):
        parts.append(part)
        if len(parts) % 100 == 0:
            time.sleep(0.01)  # the reader is slow; nothing waits for it
    os.close(reads_from)
    assert [writer.wait(60) for writer in writers] == [0, 0]
    lines = b"".join(parts).splitlines()
    for name in (b"a", b"b"):
        wanted = [b"%s %d %s" % (name, n, name * (9000 if n % 10 == 0 else n)) for n in range(600)]
        assert [line for line in lines if line.startswith(name)] == wanted
    assert len(lines) == 1200
    assert sum(before[:1] != after[:1] for before, after in pairwise(lines)) > 1


def test_line_that_is_queued_within_queue_is_counted(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may log at any call. A wrong size would look like a reader that takes no lines."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep)

    def log_once() -> float:
        clock.monotonic = time.monotonic
        pipe.writer.queue(b"inner\n")
        return time.monotonic()

    pipe.fill()
    monkeypatch.setattr(log_writer, "time", clock)
    clock.monotonic = log_once
    pipe.writer.queue(b"outer line\n")
    assert pipe.writer._size == len(b"inner\nouter line\n")
    assert pipe.read_on()().endswith(b"outer line\ninner\n")
    assert pipe.writer._size == 0
