"""Measures memory, descriptors, threads and CPU of processes, and the memory and keys of Redis."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.servers import RedisServer

EVERY_SECONDS: Final = 1.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample; sums over all replicas.

    Attributes:
        at: monotonic seconds.
        done: customers served so far.
        memory: resident memory in bytes.
        descriptors: open files and sockets.
        threads: threads of the operating system.
        cpu: CPU seconds since the start.
        redis_memory: memory of Redis in bytes.
        redis_keys: number of keys.
    """

    at: float
    done: int
    memory: int
    descriptors: int
    threads: int
    cpu: float
    redis_memory: int
    redis_keys: int


@dataclass(slots=True)
class ResourceSampler:
    """Takes samples of processes and their Redis."""

    processes: Sequence[int]
    store: RedisServer
    done: Callable[[], int]
    samples: list[Sample] = field(default_factory=list)

    def take_sample(self) -> None:
        """Take a sample."""
        self.samples.append(
            Sample(
                at=time.monotonic(),
                done=self.done(),
                memory=sum(resident_bytes(pid) for pid in self.processes),
                descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes),  # noqa: PTH208 - names only
                threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in self.processes),  # noqa: PTH208 - the same
                cpu=sum(cpu_seconds(pid) for pid in self.processes),
                redis_memory=int(self.store.command("INFO", "memory")["used_memory"]),
                redis_keys=int(self.store.command("DBSIZE")),
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take a sample every second while the context is open."""

        async def run() -> None:
            while True:
                await asyncio.to_thread(self.take_sample)
                await asyncio.sleep(EVERY_SECONDS)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Return the user and system CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
