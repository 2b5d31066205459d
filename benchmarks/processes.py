"""Child processes of a benchmark: starts them, waits until they respond, reads their CPU time and memory (Linux)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS: Final = 0.005
_LAST_LINES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A running program that signs challenges.

    Attributes:
        port: where it listens.
        owners: a file with the owners whose keys it has, one on each line.
        redis: the process id of its Redis.
        log: what it wrote.
        start: seconds from its start until it was ready.
    """

    name: str
    process: subprocess.Popen[bytes]
    port: int
    owners: Path
    redis: int
    log: Path
    start: float

    def fail(self, reason: str) -> NoReturn:
        """End the benchmark, with the end of the program's log."""
        sys.exit(f"{self.name}: {reason}\n{self.log.read_text('utf-8')[-_LAST_LINES:]}")


def start(
    stack: ExitStack,
    command: Sequence[str],
    *,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that is killed when ``stack`` is closed. ``folder`` is where ``python -m`` imports from first."""
    output = None if log is None else stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        cwd=folder,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def stop(process: subprocess.Popen[bytes], within: float = 30) -> None:
    """Interrupt a process, and wait until it has ended: after SIGTERM the service would first accept requests."""
    process.send_signal(signal.SIGINT)
    process.wait(within)


@contextmanager
def stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a process at the end of the context."""
    try:
        yield
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str | None = None, within: float = 60) -> None:
    """Wait until a program listens and, with ``path``, until that path returns 200.

    Raises:
        OSError: it did not in time, or the process has ended.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                pass
            if path is not None:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                    pass
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def tree(pid: int) -> Iterator[int]:
    """Yield the ids of a process and of all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used."""
    total = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # utime and stime of proc_pid_stat(5)
    return total / _TICKS


def resident_mib(pid: int) -> list[float]:
    """Return the resident memory of a process and of each of its descendants, in MiB."""
    lines = (line for each in tree(pid) for line in Path(f"/proc/{each}/status").read_text().splitlines())
    return [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")]
