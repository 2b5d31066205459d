"""One replica of the service: a port, and the processes that served it one after the other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from signer.devsite.processes import send_signal
from tests.chaos.proxy import TappedProxy
from tests.support.servers import free_port

_READY_WITHIN_SECONDS: Final = 60.0
_MORE_STARTS: Final = 2
_POLL_SECONDS: Final = 0.05


class ReplicaFailed(Exception):
    """A process did not become ready or did not exit; the message contains the end of its log."""


@dataclass(slots=True)
class ReplicaProcess:
    """One process of a replica.

    Attributes:
        name: ``2.5`` is the fifth process of replica 2.
        log: its log file.
        began: Unix seconds.
        killed: when it was killed, or ``None``.
        ended: exit status and seconds until the exit, if it was asked to stop.
    """

    name: str
    log: Path
    began: float
    killed: float | None = None
    ended: tuple[int, float] | None = None

    def lines(self) -> list[dict[str, Any]]:
        """Return its log lines; one that is no JSON object becomes ``{"event": None, "text": …}``."""
        return [_line(text) for text in self.log.read_text("utf-8", "replace").splitlines()]


class ChaosReplica:
    """A replica of the service.

    Attributes:
        number: 1, 2, 3.
        store_proxies: its proxies to the store.
        card_api_proxy: its proxy to the card API.
        processes: all its processes so far.
        unavailable: spans (Unix seconds) in which it was stalled, dead or starting.
        busy: held by the fault that uses this replica.
    """

    def __init__(self, number: int, folder: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.number = number
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.store_proxies: tuple[TappedProxy, ...] = ()
        self.card_api_proxy: TappedProxy
        self.processes: list[ReplicaProcess] = []
        self.unavailable: list[tuple[float, float]] = []
        self.busy = asyncio.Lock()
        self._folder = folder
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._unavailable_since: float | None = time.time()

    @property
    def name(self) -> str:
        """Name of the current process."""
        return f"{self.number}.{len(self.processes)}"

    @property
    def pid(self) -> int:
        """Process id of the current process."""
        return self._child.pid

    @property
    def is_up(self) -> bool:
        """Whether it can respond."""
        return self._unavailable_since is None

    async def start(self) -> None:
        """Start a process, and wait until it is ready. If it ends before that, start another one, as a platform does.

        SoftHSM rarely shows a process no token while others open the same files; the service then refuses to start.
        """
        for _ in range(_MORE_STARTS):
            try:
                return await self._start_once()
            except ReplicaFailed:
                if self._child.returncode is None:
                    raise
                self.processes.pop()
        return await self._start_once()

    async def _start_once(self) -> None:
        log = self._folder / f"replica-{self.number}.{len(self.processes) + 1}.log"
        self.processes.append(ReplicaProcess(f"{self.number}.{len(self.processes) + 1}", log, time.time()))
        with log.open("wb") as file:
            self._process = await asyncio.create_subprocess_exec(
                *_killed_with_parent(),
                *(sys.executable, *self._command),
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        ends = time.monotonic() + _READY_WITHIN_SECONDS
        while b'"event":"service.ready"' not in log.read_bytes():
            if self._process.returncode is not None or time.monotonic() > ends:
                raise ReplicaFailed(f"replica {self.name} did not become ready:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(_POLL_SECONDS)
        self._mark_available()

    async def kill(self) -> None:
        """Kill it (SIGKILL), and wait until it is gone."""
        self.kill_now()
        await self._child.wait()

    def kill_now(self) -> None:
        """Kill it (SIGKILL), without waiting."""
        self._mark_unavailable()
        if self.processes[-1].killed is None:
            self.processes[-1].killed = time.time()
            self._child.kill()

    def stall(self) -> None:
        """Stop it (SIGSTOP)."""
        self._mark_unavailable()
        send_signal(self._child, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it (SIGCONT)."""
        send_signal(self._child, signal.SIGCONT)
        self._mark_available()

    async def terminate(self, within: float, times: int = 1) -> None:
        """Send SIGTERM so many times, and wait for the exit.

        Raises:
            ReplicaFailed: it did not exit in time.
        """
        self._mark_unavailable()
        asked = time.monotonic()
        for _ in range(times):
            send_signal(self._child, signal.SIGTERM)
            await asyncio.sleep(_POLL_SECONDS)
            if self._child.returncode is not None:
                break
        try:
            status = await asyncio.wait_for(self._child.wait(), within)
        except TimeoutError:
            raise ReplicaFailed(
                f"replica {self.name} did not exit:\n{self.processes[-1].log.read_text()[-2000:]}"
            ) from None
        self.processes[-1].ended = status, time.monotonic() - asked

    async def end(self) -> None:
        """Kill the process if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def was_unavailable(self, since: float, until: float) -> bool:
        """Return whether it was unavailable at any time between two instants."""
        spans = [
            *self.unavailable,
            *([(self._unavailable_since, until)] if self._unavailable_since is not None else []),
        ]
        return any(began <= until and since <= ended for began, ended in spans)

    @property
    def _child(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def _mark_unavailable(self) -> None:
        self._unavailable_since = self._unavailable_since or time.time()

    def _mark_available(self) -> None:
        if self._unavailable_since is not None:
            self.unavailable.append((self._unavailable_since, time.time()))
        self._unavailable_since = None


def _line(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    return line if isinstance(line, dict) else {"event": None, "text": text}


def _killed_with_parent() -> tuple[str, ...]:
    """Return the command prefix that makes the kernel kill the child when this process dies."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL", "--")


def plain_environment(**more: str) -> dict[str, str]:
    """Return an environment for children without ``SIGNER_…`` variables."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | more
