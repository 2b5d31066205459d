"""Run the service as several worker processes on one port (Linux).

The supervisor reserves the port, forks the workers, and then only waits for signals. It has one thread, no event loop
and no secret. It writes no log line while a worker runs: the successor of a worker that has ended logs why.

* Each worker listens on the port by itself (``SO_REUSEPORT``), and the kernel shares out the connections.
* Until all workers are ready, none accepts requests, and the end of one ends the service.
* Later a worker that ends is replaced, first after a quarter of a second, then after growing pauses. If every worker
  has ended ``MAX_ENDS`` times in a row, the service ends.
* SIGTERM, SIGINT and SIGHUP are passed on to all workers. A worker that does not stop in time is killed.
* The kernel kills the workers if the supervisor dies.

All these signals are blocked in the supervisor, and in a worker until ``Worker.receive_signals``: none is lost.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from signer.application.backoff import Backoff
from signer.web.connections import CLOSE_WITHIN
from signer.web.settings import HttpSettings

MAX_ENDS: Final = 5
"""The service ends if every worker has ended this often in a row."""
STEADY_AFTER: Final = 60.0
"""Seconds after which the end of a worker does not count as one in a row."""
ENDS_WITHIN: Final = CLOSE_WITHIN + 3.0
"""Seconds for the end of a worker after its drain: its connections, the last lines of the log, its libraries."""

_RESTART: Final = Backoff(first_pause=timedelta(seconds=0.25), longest_pause=timedelta(seconds=15))
_PR_SET_PDEATHSIG: Final = 1
_FAILED: Final = 1

# From a worker to the supervisor. Real-time signals are queued, so none hides another.
_READY_SIGNAL: Final = getattr(signal, "SIGRTMIN", 0)  # other systems than Linux have none
_RELOAD_SIGNAL: Final = _READY_SIGNAL + 1
# From the supervisor to each worker, once.
_ALL_READY_SIGNAL: Final = signal.SIGUSR1
# From outside to the supervisor, which passes them on.
_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_BLOCKED: Final = frozenset(
    {*_STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD, _ALL_READY_SIGNAL, _READY_SIGNAL, _RELOAD_SIGNAL}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a process of the service is told at its start. Without a supervisor, only ``port`` is set.

    Attributes:
        port: to listen on.
        index: from 0; a successor has the same.
        log_lock: the descriptor of a file that a process locks while it writes log lines.
        predecessor_end: how the worker ended whose place this one takes, if any.
        ends_in_a_row: how often workers of this index have ended, without a minute between them.
        pause: to wait before it starts.
        supervisor: its process id.
    """

    port: int
    index: int = 0
    log_lock: int | None = None
    predecessor_end: str | None = None
    ends_in_a_row: int = 0
    pause: timedelta = timedelta(0)
    supervisor: int = 0

    @property
    def is_alone(self) -> bool:
        """Whether this is the only process of the service."""
        return not self.supervisor

    def receive_signals(self) -> None:
        """Receive signals from now on; the handlers must be set."""
        if not self.is_alone:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)

    async def wait_for_others(self) -> None:
        """Wait until all workers are ready, as this one is. A successor does not wait."""
        if not self.is_alone and self.predecessor_end is None:
            all_ready = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(_ALL_READY_SIGNAL, all_ready.set)
            os.kill(self.supervisor, _READY_SIGNAL)
            await all_ready.wait()

    def reload_others(self) -> None:
        """Let the other workers reload their keys."""
        if not self.is_alone:
            os.kill(self.supervisor, _RELOAD_SIGNAL)


def reserve_port(settings: HttpSettings, stack: ExitStack) -> int:
    """Keep the port for this process and its children until ``stack`` is closed, and return its number.

    Raises:
        OSError: the address cannot be used.
    """
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    port = settings.port
    for family, kind, _, _, address in dict.fromkeys(found):
        reserved = stack.enter_context(socket.socket(family, kind))
        # asyncio sets these options, too, when a worker listens.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        reserved.bind((address[0], port, *address[2:]))
        # Not earlier: with this option, bind would succeed although another program has the port.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = reserved.getsockname()[1]
    return port


@dataclass(frozen=True, slots=True)
class _Process:
    """A running worker, and when it began its work (``time.monotonic``)."""

    worker: Worker
    since: float

    @property
    def ends_in_a_row(self) -> int:
        """How often workers of this index have ended in a row until now."""
        return 0 if time.monotonic() - self.since >= STEADY_AFTER else self.worker.ends_in_a_row


class Supervisor:
    """Forks workers until it is asked to stop.

    Attributes:
        status: the exit status.
        failure: why the service ends, if no worker has logged that.
        ended: the workers that ended without a successor, which would have logged it; ``predecessor_end`` says how.
    """

    def __init__(self, settings: HttpSettings, port: int) -> None:
        self.status = 0
        self.failure: str | None = None
        self.ended: list[Worker] = []
        self._stop_within: Final = (settings.pre_stop + settings.drain_within).total_seconds() + ENDS_WITHIN
        self._processes: Final[dict[int, _Process]] = {}
        self._not_ready: Final = set(range(settings.workers))
        self._kill_at: float | None = None  # set by a stop
        self._prctl: Final = ctypes.CDLL(None, use_errno=True).prctl
        first = Worker(port=port, log_lock=os.memfd_create("log-lock"), supervisor=os.getpid())
        self._first: Final = [replace(first, index=index) for index in range(settings.workers)]

    def run(self) -> Worker | None:
        """Return in each worker, and in the supervisor after all of them have ended."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        gc.collect()
        gc.freeze()  # a collection would write to the pages that the workers share
        to_start: Sequence[Worker] = self._first
        while True:
            for worker in to_start:
                if self._fork(worker):
                    return worker
            if not self._processes:
                return None
            to_start = self._handle_next_signal()

    def _fork(self, worker: Worker) -> bool:
        """Return whether this process is the worker."""
        pid = os.fork()
        if pid:
            self._processes[pid] = _Process(worker, time.monotonic() + worker.pause.total_seconds())
            return False
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != worker.supervisor:  # it has died before that
            os._exit(_FAILED)
        return True

    def _handle_next_signal(self) -> Sequence[Worker]:
        """Wait for a signal, or for the end of a stop's time, and return the workers to start."""
        if self._kill_at is None:
            received: signal.struct_siginfo | None = signal.sigwaitinfo(_BLOCKED)
        else:
            received = signal.sigtimedwait(_BLOCKED, max(self._kill_at - time.monotonic(), 0))
        if received is None:
            self._send(signal.SIGKILL)
            self._kill_at = time.monotonic() + ENDS_WITHIN
        elif received.si_signo == signal.SIGCHLD:
            return self._reap()
        elif received.si_signo in _STOP_SIGNALS:
            self._stop(received.si_signo)
        elif received.si_signo == _READY_SIGNAL:
            self._worker_is_ready(received.si_pid)
        elif received.si_signo in {signal.SIGHUP, _RELOAD_SIGNAL}:
            self._send(signal.SIGHUP, all_but=received.si_pid)
        return ()

    def _reap(self) -> list[Worker]:
        """Collect the processes that have ended, and return the successors of workers."""
        successors: list[Worker] = []
        while self._processes:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            process = self._processes.pop(pid, None)
            if process is not None:  # as the first process of a container, this one gets others' children, too
                successors += self._successor(process, os.waitstatus_to_exitcode(status), successors)
        if self._kill_at is None:
            return successors
        self.ended += successors
        return []

    def _successor(self, process: _Process, status: int, not_started: Sequence[Worker]) -> Sequence[Worker]:
        """Return the successor of a worker that has ended, or stop if there is to be none.

        ``not_started``: the successors of workers that have ended at the same time.
        """
        is_stopping = self._kill_at is not None
        if is_stopping and status == 0:
            return ()
        reason = f"exit status {status}" if status >= 0 else _name_of(-status)
        ends = process.ends_in_a_row + 1
        pause = _RESTART.pause_after(ends)
        ended = replace(process.worker, predecessor_end=reason, ends_in_a_row=ends, pause=pause)
        if not is_stopping and not self._not_ready:
            of_running = (other.ends_in_a_row for other in self._processes.values())
            if min([ends, *of_running, *(other.ends_in_a_row for other in not_started)]) < MAX_ENDS:
                return [ended]
            self.failure = f"Every worker has ended {MAX_ENDS} times in a row, each time within {STEADY_AFTER:g} s."
        self.ended.append(ended)
        self.status = self.status or max(status, _FAILED)
        self._stop(signal.SIGTERM)
        return ()

    def _stop(self, number: int) -> None:
        """Pass on the signal, once."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._stop_within
            self._send(number)

    def _worker_is_ready(self, pid: int) -> None:
        process = self._processes.get(pid)
        if process is not None and self._not_ready:
            self._not_ready.discard(process.worker.index)
            if not self._not_ready:
                self._send(_ALL_READY_SIGNAL)

    def _send(self, number: int, *, all_but: int = 0) -> None:
        for pid in self._processes:
            if pid != all_but:
                os.kill(pid, number)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # of a real-time signal
        return f"signal {number}"
