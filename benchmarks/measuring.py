"""What the benchmarks of keys measure with: slices of work, pairs of them, goals, and stalls of the event loop.

What is compared takes turns, a slice each, in one run. A machine that is shared is told from the product by what other
programs had of the cores meanwhile (Linux): a ``Pairs`` decides by its calmer half, and says how calm that was.
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
"""So many cores may others have before a missed goal is put down to them."""
_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)  # idle and iowait, of proc_stat(5)
_GUESTS = 8  # from here on what is counted already


@dataclass(slots=True)
class Spent:
    """What a stretch of work took.

    Attributes:
        count: pieces of work: signatures, keys.
        seconds: by the wall clock.
        cpu: seconds of this process's CPU.
        others: how many cores other programs had meanwhile; 0 where that cannot be told.
    """

    count: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    others: float = 0.0

    @property
    def rate(self) -> float:
        """Pieces a second."""
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU for each, in µs."""
        return self.cpu / self.count * 1e6

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the body; whoever does the work says how much it was."""
        cpu, busy, started = time.process_time(), _busy_seconds(), time.perf_counter()
        yield
        self.seconds = time.perf_counter() - started
        self.cpu = time.process_time() - cpu
        self.others = max(0.0, _busy_seconds() - busy - self.cpu) / self.seconds if busy else 0.0

    def __add__(self, other: Spent) -> Spent:
        """Put two stretches together."""
        seconds = self.seconds + other.seconds
        others = (self.others * self.seconds + other.others * other.seconds) / seconds
        return Spent(self.count + other.count, seconds, self.cpu + other.cpu, others)


@dataclass(slots=True)
class Pairs:
    """Bare and whole, side by side, round by round; all figures are medians of the calmer half of the rounds."""

    rounds: list[tuple[Spent, Spent]] = field(default_factory=list)

    async def take(self, bare: Callable[[], Awaitable[int]], whole: Callable[[], Awaitable[int]]) -> None:
        """Add a round: each does a slice of work and gives how much it was; who begins changes."""
        spent = Spent(), Spent()
        turns = [(spent[0], bare), (spent[1], whole)]
        for each, work in reversed(turns) if len(self.rounds) % 2 else turns:
            with each.watch():
                each.count = await work()
        self.rounds.append(spent)

    @property
    def calm(self) -> list[tuple[Spent, Spent]]:
        """The calmer half."""
        return sorted(self.rounds, key=lambda pair: pair[0].others + pair[1].others)[: (len(self.rounds) + 1) // 2]

    def of(self, figure: Callable[[Spent, Spent], float]) -> float:
        """Give the median of a figure of bare and whole."""
        return median(figure(bare, whole) for bare, whole in self.calm)

    @property
    def ratio(self) -> float:
        """The whole's rate as a share of the bare one's."""
        return self.of(lambda bare, whole: whole.rate / bare.rate)

    @property
    def cpu_ratio(self) -> float:
        """The bare's CPU for each as a share of the whole's."""
        return self.of(lambda bare, whole: bare.cpu_us / whole.cpu_us)

    @property
    def others(self) -> float:
        """How many cores other programs had in these rounds."""
        return self.of(lambda bare, whole: (bare.others + whole.others) / 2)


async def for_a_slice(sign: Callable[[], Awaitable[object]], callers: int) -> int:
    """Have so many callers sign one after the other for a slice; gives how many signatures."""
    count = 0
    ends = time.perf_counter() + SLICE_SECONDS

    async def call() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await sign()
            count += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return count


@dataclass(slots=True)
class Tally:
    """Signatures, and what they took, over several slices."""

    spent: Spent = field(default_factory=Spent)

    @property
    def rate(self) -> float:
        """Signatures a second."""
        return self.spent.rate

    @property
    def cpu_us(self) -> float:
        """The process's CPU for each, in µs."""
        return self.spent.cpu_us

    async def take(self, sign: Callable[[], Awaitable[object]], callers: int) -> None:
        """Add a slice, in which so many callers sign one after the other."""
        more = Spent()
        with more.watch():
            more.count = await for_a_slice(sign, callers)
        self.spent += more


@dataclass(slots=True)
class Goals:
    """What was to be reached, and what was not."""

    missed: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, goal: float, others: float, *, at_most: bool = False) -> str:
        """Give a word for the table, and remember what was missed."""
        if value <= goal if at_most else value >= goal:
            return "kept"
        because = f", while others had {others:.1f} cores: measure again when it is calm" if others > CALM else ""
        self.missed.append(f"{what}: {value:.2f}, and {'at most' if at_most else 'at least'} {goal} is wanted{because}")
        return "missed"

    def tell(self) -> int:
        """Print what was missed; gives the exit status."""
        for line in self.missed:
            print(f"goal missed: {line}")
        return 1 if self.missed else 0


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


def _busy_seconds() -> float:
    """Give the seconds that all cores have worked since the machine started; 0 where nobody counts them."""
    try:
        jiffies = [int(each) for each in _STAT.read_text().partition("\n")[0].split()[1:]]
    except OSError:
        return 0.0
    return (sum(jiffies[:_GUESTS]) - sum(jiffies[_IDLE])) / os.sysconf("SC_CLK_TCK")
