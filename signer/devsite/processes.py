"""Run the service and the simulated card API as child processes, and read the JSON lines that they write."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

_STOP_WITHIN_SECONDS: Final = 10.0
_KEPT_LINES: Final = 20
_LINE_LIMIT: Final = 1 << 20
_ENDED: Final = "process.ended"


class ProcessFailed(Exception):
    """A child process ended or did not log an event in time. The message has its last lines."""


class ChildProcess:
    """A child process, usually ``signer <command>``. Every JSON line that it writes is an event.

    Attributes:
        echo: if set, called with each line in place of parsing it.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Start reading a new process whose standard output and error are one pipe."""
        self._name = name
        self._process = process
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._tail: list[str] = []
        self.echo: Callable[[str], None] | None = None
        self._reader = asyncio.create_task(self._read())

    async def wait_for(self, event: str, within: float) -> dict[str, Any]:
        """Return the next event of that name and drop the events before it.

        Raises:
            ProcessFailed: the process ended, or did not write the event within so many seconds.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    line = await self._events.get()
                    if line.get("event") == event:
                        return line
                    if line.get("event") == _ENDED:
                        raise ProcessFailed(f"{self._name} ended.\n{self.last_lines}")
        except TimeoutError:
            raise ProcessFailed(f"{self._name} did not log '{event}' within {within:g} s.\n{self.last_lines}") from None

    def take_events(self) -> list[dict[str, Any]]:
        """Return and forget the events that ``wait_for`` has not consumed."""
        return [self._events.get_nowait() for _ in range(self._events.qsize())]

    @property
    def last_lines(self) -> str:
        """The last lines that the process wrote."""
        return "\n".join(self._tail)

    async def kill(self) -> None:
        """Kill the process (SIGKILL), as a power failure would."""
        self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal if the process still runs."""
        send_signal(self._process, number)

    async def wait(self) -> int:
        """Wait until the process ends and return its exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Terminate the process; kill it if that takes too long."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_WITHIN_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        stream = self._process.stdout
        while stream is not None and (line := await stream.readline()):
            text = line.decode("utf-8", "replace").rstrip()
            self._tail = [*self._tail, text][-_KEPT_LINES:]
            if self.echo is not None:
                self.echo(text)
                continue
            with suppress(ValueError):
                event = json.loads(text)
                if isinstance(event, dict):
                    self._events.put_nowait(event)
        self._events.put_nowait({"event": _ENDED})


def signer_process(*arguments: str, environment: Mapping[str, str]) -> AbstractAsyncContextManager[ChildProcess]:
    """Run ``signer <arguments>`` while the context is open."""
    return python_process(f"signer {arguments[0]}", "-m", "signer", *arguments, environment=environment)


@asynccontextmanager
async def python_process(name: str, *arguments: str, environment: Mapping[str, str]) -> AsyncIterator[ChildProcess]:
    """Run a Python program while the context is open. ``name`` is for error messages."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_LINE_LIMIT,
        start_new_session=True,  # so that Ctrl-C reaches only the parent, which stops its children in order
    )
    child = ChildProcess(name, process)
    try:
        yield child
    finally:
        await child.stop()


def send_signal(child: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal if the child still runs.

    ``child.send_signal`` would poll the process and take its exit status away from asyncio.
    """
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)
