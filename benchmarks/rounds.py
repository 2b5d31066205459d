"""Interleaved rounds, and ratios of two programs within one round.

In a round each program runs for a few seconds, one after the other, and every second round in the reverse order. Other
load on the machine then changes both sides of a ratio. A ratio is the median of the rounds, with the least and the
largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeVar

from benchmarks.load import Sample


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratios of all rounds: the median, the least and the largest."""

    median: float
    least: float
    largest: float

    def __format__(self, spec: str) -> str:
        """Return ``median (least … largest)``."""
        spec = spec or ".2f"
        return f"{self.median:{spec}} ({self.least:{spec}} … {self.largest:{spec}})"


SampleT = TypeVar("SampleT", bound=Sample)
T = TypeVar("T")


def interleave(turns: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Take turns for so many rounds; return the samples of each turn."""
    samples: dict[str, list[T]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in reversed(samples) if number % 2 else samples:
            samples[name].append(turns[name]())
    return samples


def paired(ours: Sequence[Sample], theirs: Sequence[Sample], figure: str) -> Ratio:
    """Return the ratios of a figure, ours to theirs, round by round."""
    return ratio([getattr(our, figure) for our in ours], [getattr(their, figure) for their in theirs])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratios of one value for each round, ours to theirs."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))


def medians(samples: Sequence[SampleT]) -> SampleT:
    """Return the median of each figure."""
    rows = [asdict(sample) for sample in samples]
    return type(samples[0])(**{figure: median(row[figure] for row in rows) for figure in rows[0]})
