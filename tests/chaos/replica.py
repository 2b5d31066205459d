"""One replica of the service: a place with a port, in which one process after the other lives."""

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
from tests.chaos.proxy import Way
from tests.support.servers import free_port

_READY_WITHIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


class ReplicaFailed(Exception):
    """A process did not become ready, or did not end; the message holds the end of its log."""


@dataclass(slots=True)
class Life:
    """One process.

    Attributes:
        name: ``2.5`` is the fifth of the second replica.
        log: its lines.
        began: Unix seconds.
        killed: when it was killed, or ``None``.
        ended: its exit status and how long it took to end, where it was asked to.
    """

    name: str
    log: Path
    began: float
    killed: float | None = None
    ended: tuple[int, float] | None = None

    def lines(self) -> list[dict[str, Any]]:
        """Give what it wrote; a line that is none comes as ``{"event": None, "text": …}``."""
        return [_line(text) for text in self.log.read_text("utf-8", "replace").splitlines()]


class Replica:
    """One replica.

    Attributes:
        number: 1, 2, 3.
        store_ways: through which it reaches the store.
        api_way: through which it reaches the card API.
        lives: its processes so far.
        hindered: from when to when it could not answer: stalled, dead or starting.
        busy: held by whatever is being done to it.
    """

    def __init__(self, number: int, folder: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.number = number
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.store_ways: tuple[Way, ...] = ()
        self.api_way: Way
        self.lives: list[Life] = []
        self.hindered: list[tuple[float, float]] = []
        self.busy = asyncio.Lock()
        self._folder = folder
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._hindered_since: float | None = time.time()

    @property
    def name(self) -> str:
        """The name of the present life."""
        return f"{self.number}.{len(self.lives)}"

    @property
    def pid(self) -> int:
        """The present life's process."""
        return self._child.pid

    @property
    def is_up(self) -> bool:
        """Whether it can answer."""
        return self._hindered_since is None

    async def start(self) -> None:
        """Start a process and wait until it takes requests."""
        log = self._folder / f"replica-{self.number}.{len(self.lives) + 1}.log"
        self.lives.append(Life(f"{self.number}.{len(self.lives) + 1}", log, time.time()))
        with log.open("wb") as file:
            self._process = await asyncio.create_subprocess_exec(
                *_tied_to_us(),
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
        self._hindered_until_now()

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.kill_now()
        await self._child.wait()

    def kill_now(self) -> None:
        """The same, without waiting."""
        self._hinder()
        if self.lives[-1].killed is None:
            self.lives[-1].killed = time.time()
            self._child.kill()

    def stall(self) -> None:
        """Stop it where it stands."""
        self._hinder()
        send_signal(self._child, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on from there."""
        send_signal(self._child, signal.SIGCONT)
        self._hindered_until_now()

    async def terminate(self, within: float, times: int = 1) -> None:
        """Ask it to stop, so many times, and wait for its end.

        Raises:
            ReplicaFailed: it did not end.
        """
        self._hinder()
        asked = time.monotonic()
        for _ in range(times):
            send_signal(self._child, signal.SIGTERM)
            await asyncio.sleep(_POLL_SECONDS)
            if self._child.returncode is not None:
                break
        try:
            status = await asyncio.wait_for(self._child.wait(), within)
        except TimeoutError:
            raise ReplicaFailed(f"replica {self.name} did not end:\n{self.lives[-1].log.read_text()[-2000:]}") from None
        self.lives[-1].ended = status, time.monotonic() - asked

    async def end(self) -> None:
        """Make sure that nothing of it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def was_hindered(self, since: float, until: float) -> bool:
        """Tell whether it could not answer at some moment between two."""
        spans = [*self.hindered, *([(self._hindered_since, until)] if self._hindered_since is not None else [])]
        return any(began <= until and since <= ended for began, ended in spans)

    @property
    def _child(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def _hinder(self) -> None:
        self._hindered_since = self._hindered_since or time.time()

    def _hindered_until_now(self) -> None:
        if self._hindered_since is not None:
            self.hindered.append((self._hindered_since, time.time()))
        self._hindered_since = None


def _line(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    return line if isinstance(line, dict) else {"event": None, "text": text}


def _tied_to_us() -> tuple[str, ...]:
    """Give the words in front of a command that have the kernel kill it when we are."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL", "--")


def plain_environment(**more: str) -> dict[str, str]:
    """Give children what they need of our environment, and none of our ``SIGNER_…``."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | more
