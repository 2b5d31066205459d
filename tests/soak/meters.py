"""What is measured while a day goes by: memory, descriptors, threads and time of processes; Redis's memory and keys."""

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
    """One look, sums over all replicas.

    Attributes:
        at: monotonic seconds.
        done: customers served so far.
        memory: resident, bytes.
        descriptors: open files and sockets.
        threads: of the operating system.
        cpu: seconds so far.
        redis_memory: bytes that its data and connections take.
        redis_keys: how many.
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
class Meters:
    """The samples so far."""

    processes: Sequence[int]
    store: RedisServer
    done: Callable[[], int]
    samples: list[Sample] = field(default_factory=list)

    def look(self) -> None:
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
        """Take one every second."""

        async def run() -> None:
            while True:
                await asyncio.to_thread(self.look)
                await asyncio.sleep(EVERY_SECONDS)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def resident_bytes(pid: int) -> int:
    """Read how much of a process's memory is in RAM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Read how much time a process has had, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
