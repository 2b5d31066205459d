"""Replicas whose log goes to a file on a disk that can be full, or to a reader that can stop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

_CHUNK: Final = 1 << 16
_SMALL_PIPE: Final = 4096
"""A few lines fill it."""


class SunkProcess:
    """A replica, and the end of its log from which a test reads. It has what a ``ChildProcess`` has.

    Attributes:
        is_reading: whether the log's reader goes on.
    """

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.is_reading = True
        self._process = process
        self._descriptor = descriptor
        self._rest = b""

    def take_events(self) -> list[dict[str, Any]]:
        """Return the lines that were written since the last call; none while the reader is stopped."""
        with suppress(BlockingIOError):
            while self.is_reading and (data := os.read(self._descriptor, _CHUNK)):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def fill_disk(self) -> None:
        """Let each write to a file fail: the process's files may not grow any more."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        """Let its files grow again."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    async def stop(self) -> None:
        """Kill it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def logging_to_file(file: Path, *arguments: str, environment: Mapping[str, str]) -> AsyncIterator[SunkProcess]:
    """Run ``signer <arguments>``, which logs to a file."""
    writes_to = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    async with _logging_to(writes_to, os.open(file, os.O_RDONLY), arguments, environment) as process:
        yield process


@asynccontextmanager
async def logging_to_pipe(*arguments: str, environment: Mapping[str, str]) -> AsyncIterator[SunkProcess]:
    """Run ``signer <arguments>``, which logs to a small pipe."""
    reads_from, writes_to = os.pipe()
    fcntl.fcntl(writes_to, fcntl.F_SETPIPE_SZ, _SMALL_PIPE)
    os.set_blocking(reads_from, False)
    async with _logging_to(writes_to, reads_from, arguments, environment) as process:
        yield process


@asynccontextmanager
async def _logging_to(
    writes_to: int, reads_from: int, arguments: tuple[str, ...], environment: Mapping[str, str]
) -> AsyncIterator[SunkProcess]:
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "signer", *arguments),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writes_to,
        )
        sunk = SunkProcess(process, reads_from)
        try:
            yield sunk
        finally:
            await sunk.stop()
    finally:
        os.close(writes_to)
        os.close(reads_from)
