"""What the benchmarks of keys measure with: signatures over slices of time, and stalls of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SLICE_SECONDS = 0.5
TICK_SECONDS = 0.001


@dataclass(slots=True)
class Tally:
    """Signatures, and what they took, over several slices."""

    signatures: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Signatures a second."""
        return self.signatures / self.seconds

    @property
    def cpu_us(self) -> float:
        """The process's CPU for each, in µs."""
        return self.cpu / self.signatures * 1e6

    async def take(self, sign: Callable[[], Awaitable[object]], callers: int) -> None:
        """Add a slice, in which so many callers sign one after the other."""
        count = 0
        cpu, started = time.process_time(), time.perf_counter()
        ends = started + SLICE_SECONDS

        async def call() -> None:
            nonlocal count
            while time.perf_counter() < ends:
                await sign()
                count += 1

        await asyncio.gather(*(call() for _ in range(callers)))
        self.signatures += count
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - cpu


@dataclass(slots=True)
class Stall:
    """How long the event loop was kept from a timer, in milliseconds."""

    stalls: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest of them."""
        return max(self.stalls)

    @property
    def p99(self) -> float:
        """What 99 in 100 are shorter than."""
        return sorted(self.stalls)[len(self.stalls) * 99 // 100]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Watch while the body runs."""

        async def tick() -> None:
            while True:
                started = time.perf_counter()
                await asyncio.sleep(TICK_SECONDS)
                self.stalls.append((time.perf_counter() - started - TICK_SECONDS) * 1e3)

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
