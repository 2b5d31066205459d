"""The supervisor, with workers that do nothing else than what the test is about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

SUPERVISE: Final = """
import asyncio, os, signal, sys, time
from signer.cli import workers
from signer.web.settings import HttpSettings

def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\\n".encode())

supervisor = workers.Supervisor(HttpSettings(workers=2, pre_stop=0, drain_within=0.1), 0)
worker = supervisor.run()
if worker is None:
    say("status", supervisor.status, supervisor.failure, *(each.predecessor_end for each in supervisor.ended))
    sys.exit(supervisor.status)
"""
RECEIVING: Final = "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nworker.receive_signals()\n"
IGNORING: Final = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
READY: Final = RECEIVING + "asyncio.run(worker.wait_for_others())\n"


def supervise(worker: str, setup: str = "") -> subprocess.Popen[str]:
    """Start a supervisor whose workers run this code."""
    code = setup + SUPERVISE + worker
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def output_of(process: subprocess.Popen[str]) -> str:
    """Return the rest of what it writes until it has ended."""
    try:
        return process.communicate(timeout=60)[0]
    finally:
        process.kill()


def wait_for_state(pid: int, state: str) -> None:
    """Wait until a process has this state of proc_pid_stat(5)."""
    ends = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_workers_that_end_again_and_again_end_the_service() -> None:
    """Each one that was ready gets successors, with growing pauses; then the supervisor ends with a reason."""
    process = supervise(READY + "say(worker.index, worker.ends_in_a_row, worker.pause.total_seconds())\nos._exit(7)")
    *starts, last = output_of(process).splitlines()
    assert process.returncode == 7
    assert last.startswith("status 7 Every worker has ended 5 times in a row, each time within 60 s. exit status 7")
    of_each = [[float(line.split()[2]) for line in starts if line[0] == index] for index in "01"]
    assert min(map(len, of_each)) == 5
    for pauses in of_each:
        assert all(low <= pause <= 2 * low for low, pause in zip((0.125, 0.25, 0.5, 1), pauses[1:5], strict=True))


def test_worker_that_ends_together_with_another_counts() -> None:
    """One has ended five times, the other once, and the supervisor learns of both ends at the same time."""
    worker = READY + (
        "say(worker.index, worker.ends_in_a_row, os.getpid())\n"
        "if (worker.index, worker.ends_in_a_row) == (0, 4):\n    os.kill(os.getppid(), signal.SIGSTOP)\n"
        "if (worker.index, worker.ends_in_a_row) in {(0, 4), (1, 0)}:\n    time.sleep(600)\n"
        "os._exit(7)"
    )
    process = supervise(worker)
    assert process.stdout is not None
    starts = [process.stdout.readline().split() for _ in range(6)]
    wait_for_state(process.pid, "T")
    for index, ends, pid in starts:
        if (index, ends) in {("0", "4"), ("1", "0")}:
            os.kill(int(pid), signal.SIGKILL)
            wait_for_state(int(pid), "Z")
    process.send_signal(signal.SIGCONT)
    *more, _ = output_of(process).splitlines()
    indexes = [each[0] for each in starts] + [line[0] for line in more]
    assert min(indexes.count("0"), indexes.count("1")) >= 5


def test_worker_that_ends_before_all_are_ready_ends_the_others() -> None:
    """The exit status is its own; the other one waits for it, accepts nothing, and is asked to stop."""
    process = supervise(RECEIVING + "if worker.index:\n    os._exit(78)\n" + READY + "say('accepts')")
    output = output_of(process)
    assert (process.returncode, output) == (78, "status 78 None exit status 78\n")


def test_worker_that_does_not_stop_is_killed_after_the_drain() -> None:
    """The exit status is not 0, and the supervisor knows who had to be killed."""
    worker = IGNORING + READY + "say('ready')\ntime.sleep(600)"
    process = supervise(worker, "import signer.cli.workers as w; w.ENDS_WITHIN = 0.2\n")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    output = output_of(process)
    assert time.monotonic() - started >= 0.3
    assert (process.returncode, output) == (1, "status 1 None SIGKILL SIGKILL\n")


def test_worker_that_a_signal_without_a_name_ends_is_reported() -> None:
    """Real-time signals have only numbers."""
    number = int(signal.SIGRTMIN) + 1
    process = supervise(f"if worker.index:\n    os.kill(os.getpid(), {number})\n" + READY)
    output = output_of(process)
    assert (process.returncode, output) == (1, f"status 1 None signal {number}\n")
