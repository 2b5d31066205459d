"""Child processes that write JSON lines: how a service and a card API are started, and what they say is read."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

_STOP_WITHIN_SECONDS: Final = 10.0
_KEPT_LINES: Final = 20
_LINE_LIMIT: Final = 1 << 20


class ProcessFailed(Exception):
    """A child ended, or did not say in time what was waited for; the message holds its last lines."""


class SignerProcess:
    """One program of ours as a child, mostly a ``signer <command>``; every JSON line that it writes is an event.

    Attributes:
        echo: where lines go instead, once somebody would rather read them himself.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Take over a process that has just been started with its standard output and error piped together."""
        self._name = name
        self._process = process
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._tail: list[str] = []
        self.echo: Callable[[str], None] | None = None
        self._reader = asyncio.create_task(self._read())

    async def wait_for(self, event: str, within: float) -> dict[str, Any]:
        """Give the next event of that name; those before it are passed over.

        Raises:
            ProcessFailed: the child ended, or said nothing of the kind within so many seconds.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    found = await self._events.get()
                    if found.get("event") == event:
                        return found
                    if found.get("event") == _ENDED:
                        raise ProcessFailed(f"{self._name} ended.\n{self.last_lines}")
        except TimeoutError:
            raise ProcessFailed(f"{self._name} did not say '{event}' in {within:g} s.\n{self.last_lines}") from None

    def heard(self) -> list[dict[str, Any]]:
        """Give the events that have come and were not waited for."""
        events = []
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    @property
    def last_lines(self) -> str:
        """What the child wrote last, for a person."""
        return "\n".join(self._tail)

    async def kill(self) -> None:
        """End the child at once, as a power cut would (SIGKILL)."""
        self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        """Which process it is."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send the child a signal, if it still runs."""
        send_signal(self._process, number)

    async def wait(self) -> int:
        """Wait for the child's end; gives its exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask the child to end, and make it end."""
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


_ENDED: Final = "process.ended"


@asynccontextmanager
async def signer_process(
    *arguments: str,
    environment: Mapping[str, str],
) -> AsyncIterator[SignerProcess]:
    """Run ``signer <arguments>`` for as long as the context is open."""
    name = f"signer {arguments[0]}"
    async with python_process(name, "-m", "signer", *arguments, environment=environment) as child:
        yield child


@asynccontextmanager
async def python_process(
    name: str,
    *arguments: str,
    environment: Mapping[str, str],
) -> AsyncIterator[SignerProcess]:
    """Run a Python program of ours for as long as the context is open; ``name`` is for people."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_LINE_LIMIT,
        start_new_session=True,  # a Ctrl-C reaches the parent alone, which stops its children in order
    )
    child = SignerProcess(name, process)
    try:
        yield child
    finally:
        await child.stop()


def send_signal(child: asyncio.subprocess.Process, number: int) -> None:
    """Send a child a signal, if it still runs. Its own method looks first, and takes its exit status from asyncio."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)
