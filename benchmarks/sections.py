"""The sections of a result: which table each benchmark fills, in ``docs/performance.md`` and on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.tables import Column

_RATE: Final = Column("rate", "challenges a second")
_CPU: Final = Column("cpu", "CPU µs")
_REDIS: Final = Column("redis", "CPU of Redis µs")
_LATENCIES: Final = tuple(
    Column(key, f"{head} ms", ",.1f") for key, head in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))
)
_CPU_RATIO: Final = Column("cpu_ratio", "CPU per challenge: median (range)", ".2f")
_RATE_RATIO: Final = Column("rate_ratio", "challenges a second: median (range)", ".2f")


@dataclass(frozen=True, slots=True)
class Section:
    """One section.

    Attributes:
        command: the command that measures it.
        columns: the columns of its table.
    """

    command: str
    columns: tuple[Column, ...]


SECTIONS: Final = {
    "programs": Section("make bench", (Column("name", "program"), _RATE, _CPU, _REDIS, *_LATENCIES)),
    "ratios": Section("make bench", (Column("name", "signer compared with"), _CPU_RATIO, _RATE_RATIO)),
    "modes": Section(
        "make bench",
        (
            Column("name", "mode"),
            Column("other", "compared with"),
            _RATE,
            _CPU,
            _REDIS,
            *_LATENCIES[:2],
            _CPU_RATIO,
            _RATE_RATIO,
        ),
    ),
    "latency": Section(
        "make bench",
        (
            Column("name", "program"),
            _RATE,
            *_LATENCIES,
            Column("late", "sent late, p99 ms", ".2f"),
            Column("p99_ratio", "p99 / floor's: median (range)", ".2f"),
        ),
    ),
    "growth": Section(
        "make bench ARGS=growth",
        (
            Column("name", "with"),
            _RATE,
            _CPU,
            _REDIS,
            *_LATENCIES[:2],
            Column("fill", "filled or loaded in s", ".1f"),
            _CPU_RATIO,
            _RATE_RATIO,
        ),
    ),
    "stalls": Section(
        "make bench ARGS=stalls",
        (
            Column("name", "while"),
            Column("seconds", "seconds", ".1f"),
            Column("longest", "longest stall ms", ".1f"),
            Column("busy", "longest without waiting, CPU ms", ".1f"),
            Column("p999", "p99.9 of stalls ms", ".1f"),
        ),
    ),
    "start": Section(
        "make bench ARGS=start",
        (
            Column("name", "keys"),
            Column("seconds", "start to ready s: median (range)", ".2f"),
            Column("idle", "memory when ready MiB"),
            Column("loaded", "memory after load MiB"),
        ),
    ),
    "workers": Section(
        "make bench ARGS=workers",
        (
            Column("name", "workers"),
            _RATE,
            _CPU,
            *_LATENCIES[:2],
            Column("memory", "memory of each MiB"),
            _CPU_RATIO,
            _RATE_RATIO,
        ),
    ),
    "metrics": Section("make bench ARGS=metrics", (Column("name", "metrics"), _RATE, _CPU, _CPU_RATIO)),
    "sizing": Section(
        "make bench ARGS=sizing",
        (
            Column("name", "CPU limit of the pod"),
            Column("highest", "highest load, challenges a second"),
            Column("rate", "plan with, challenges a second"),
            *_LATENCIES,
            Column("how", "figures are"),
        ),
    ),
    "instructions": Section(
        "make bench ARGS=instructions",
        (
            Column("name", "program"),
            Column("instructions", "thousand instructions a challenge"),
            Column("ratio", "instructions / floor's: median (range)", ".2f"),
        ),
    ),
    "profile": Section("make bench ARGS=profile", (Column("name", "part"), Column("share", "share of the CPU", ".0%"))),
}
