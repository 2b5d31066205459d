"""Measures slices of work, compares pairs of them, checks goals, and measures stalls of the event loop.

What is compared takes turns, a slice each, in one run. On a shared machine other programs disturb the result, so the
CPU time of other programs is measured, too (Linux): ``Pairs`` uses the less disturbed half of its rounds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

SLICE_SECONDS = 0.5
TICK_SECONDS = 0.001
CALM = 0.25
"""Cores used by other programs above which a missed goal may be due to them."""
_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)  # idle and iowait, of proc_stat(5)
_GUESTS = 8  # these fields are contained in earlier ones


@dataclass(slots=True)
class Spent:
    """The cost of some work.

    Attributes:
        count: number of signatures or keys.
        seconds: wall-clock time.
        cpu: CPU seconds of this process.
        others: cores that other programs used meanwhile; 0 if unknown.
    """

    count: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    others: float = 0.0

    @property
    def rate(self) -> float:
        """Count per second."""
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU per piece in µs."""
        return self.cpu / self.count * 1e6

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the body; the caller sets ``count``."""
        cpu, busy, started = time.process_time(), _busy_seconds(), time.perf_counter()
        yield
        self.seconds = time.perf_counter() - started
        self.cpu = time.process_time() - cpu
        self.others = max(0.0, _busy_seconds() - busy - self.cpu) / self.seconds if busy else 0.0

    def __add__(self, other: Spent) -> Spent:
        """Return the sum of two measurements."""
        seconds = self.seconds + other.seconds
        others = (self.others * self.seconds + other.others * other.seconds) / seconds
        return Spent(self.count + other.count, seconds, self.cpu + other.cpu, others)


@dataclass(slots=True)
class Pairs:
    """Rounds of a bare and a whole measurement; all figures are medians of the less disturbed half of the rounds."""

    rounds: list[tuple[Spent, Spent]] = field(default_factory=list)

    async def take(self, bare: Callable[[], Awaitable[int]], whole: Callable[[], Awaitable[int]]) -> None:
        """Add a round: each function does a slice of work and returns its count; the order alternates."""
        spent = Spent(), Spent()
        turns = [(spent[0], bare), (spent[1], whole)]
        for each, work in reversed(turns) if len(self.rounds) % 2 else turns:
            with each.watch():
                each.count = await work()
        self.rounds.append(spent)

    @property
    def calm(self) -> list[tuple[Spent, Spent]]:
        """The less disturbed half of the rounds."""
        return sorted(self.rounds, key=lambda pair: pair[0].others + pair[1].others)[: (len(self.rounds) + 1) // 2]

    def of(self, figure: Callable[[Spent, Spent], float]) -> float:
        """Return the median of a figure of bare and whole."""
        return median(figure(bare, whole) for bare, whole in self.calm)

    @property
    def ratio(self) -> float:
        """Rate of the whole divided by that of the bare."""
        return self.of(lambda bare, whole: whole.rate / bare.rate)

    @property
    def cpu_ratio(self) -> float:
        """CPU per piece of the bare divided by that of the whole."""
        return self.of(lambda bare, whole: bare.cpu_us / whole.cpu_us)

    @property
    def others(self) -> float:
        """Cores that other programs used in these rounds."""
        return self.of(lambda bare, whole: (bare.others + whole.others) / 2)


async def for_a_slice(sign: Callable[[], Awaitable[object]], callers: int) -> int:
    """Let so many concurrent callers sign repeatedly for one slice; return the number of signatures."""
    count = 0
    ends = time.perf_counter() + SLICE_SECONDS

    async def call() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await sign()
            count += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return count


async def measure_slice(sign: Callable[[], Awaitable[object]], callers: int) -> Spent:
    """Return the cost of one slice with so many concurrent callers."""
    spent = Spent()
    with spent.watch():
        spent.count = await for_a_slice(sign, callers)
    return spent


@dataclass(slots=True)
class Goals:
    """Checks goals, and remembers the missed ones."""

    missed: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, goal: float, others: float, *, at_most: bool = False) -> str:
        """Return ``kept`` or ``missed`` for the table."""
        if value <= goal if at_most else value >= goal:
            return "kept"
        because = f"; other programs used {others:.1f} cores: measure again on an idle machine" if others > CALM else ""
        self.missed.append(f"{what}: {value:.2f}, goal {'at most' if at_most else 'at least'} {goal}{because}")
        return "missed"

    def tell(self) -> int:
        """Print the missed goals; return the exit status."""
        for line in self.missed:
            print(f"goal missed: {line}")
        return 1 if self.missed else 0


@dataclass(slots=True)
class Stall:
    """Delays of a timer in the event loop, in milliseconds."""

    stalls: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest delay."""
        return max(self.stalls)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return sorted(self.stalls)[len(self.stalls) * 99 // 100]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Measure while the context is open."""

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


def _busy_seconds() -> float:
    """Return the busy seconds of all cores since the machine started; 0 if unknown."""
    try:
        jiffies = [int(each) for each in _STAT.read_text().partition("\n")[0].split()[1:]]
    except OSError:
        return 0.0
    return (sum(jiffies[:_GUESTS]) - sum(jiffies[_IDLE])) / os.sysconf("SC_CLK_TCK")
