"""The series of a metric: numbers that are cheap to change, and that ``prometheus-client`` shows.

The library's own counters take a lock and several calls for each change, and each challenge makes twenty changes. These
take no lock: nearly all changes come from the event loop's thread, and of two threads at once one may be lost.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, product
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from signer.observability.metric_table import OTHER, Metric

Labels = tuple[object, ...]
"""The values of the labels of one series."""


class Numbers(dict[Labels, float]):
    """The series of a counter or a gauge. Only closed values become keys, so they do not grow with input."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(dict.fromkeys(product(*metric.labels.values()), 0.0) if metric.is_complete else {})
        self._metric: Final = metric

    def add(self, *labels: object, amount: float = 1.0) -> None:
        """Change a series by ``amount``."""
        try:
            self[labels] += amount
        except KeyError:
            known = _closed(self._metric, labels)
            self[known] = self.get(known, 0.0) + amount

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return all series for the library."""
        kind = CounterMetricFamily if self._metric.kind == "counter" else GaugeMetricFamily
        family = kind(self._metric.name, self._metric.meaning, labels=tuple(self._metric.labels))
        for labels, value in self.copy().items():  # other threads write events meanwhile, which counters count
            family.add_metric(_texts(labels), value)
        return family


class Histogram:
    """One series of a histogram: how many durations are in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Add one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Histograms(dict[Labels, Histogram]):
    """The series of a histogram, each created when it is first used. Only closed values become keys."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self._metric: Final = metric
        if not metric.labels:
            self[()] = Histogram(metric.buckets)

    def __missing__(self, labels: Labels) -> Histogram:
        return self.setdefault(_closed(self._metric, labels), Histogram(self._metric.buckets))

    def family(self) -> HistogramMetricFamily:
        """Return all series for the library."""
        family = HistogramMetricFamily(self._metric.name, self._metric.meaning, labels=tuple(self._metric.labels))
        bounds = [*map(floatToGoString, self._metric.buckets), "+Inf"]
        for labels, each in self.items():
            family.add_metric(_texts(labels), list(zip(bounds, accumulate(each.counts), strict=True)), each.sum)
        return family


def _closed(metric: Metric, labels: Labels) -> Labels:
    """Return the values with ``OTHER`` in place of each that the table does not have."""
    allowed = metric.labels.values()
    return tuple(value if value in known else OTHER for value, known in zip(labels, allowed, strict=True))


def _texts(labels: Labels) -> list[str]:
    return ["none" if value is None else str(value) for value in labels]
