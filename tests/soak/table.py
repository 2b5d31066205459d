"""The figures of a day, as a table for a terminal or for a page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tests.soak.meters import Sample
from tests.soak.verdict import Evidence, tenths

_MIB = 2**20


def figures(run: Evidence, found: Sequence[str]) -> dict[str, str]:
    """Give the figures in the order of the table's rows."""
    first, last = tenths(run)
    replicas = run.day.replicas
    cpu = run.samples[-1].cpu - run.samples[0].cpu
    peak = max(run.samples, key=lambda sample: sample.redis_keys)
    return {
        "challenges": str(run.endings.total()),
        "ended": ", ".join(f"{count} {ending}" for ending, count in run.endings.most_common()),
        "requests of the wallets": str(run.requests),
        "challenges taken over": str(run.logs.events["challenge.taken_over"]),
        "times the circuit breaker opened": str(run.logs.events["card_api.breaker_opened"]),
        "seconds": f"{run.seconds:.0f}",
        "challenges a second": f"{run.endings.total() / run.seconds:.0f}",
        f"CPU of the service ({replicas} processes)": f"{cpu:.0f} s",
        "CPU of the service per challenge": f"{cpu / run.endings.total() * 1000:.2f} ms",
        "memory of a process, first tenth": f"{_mean(first, 'memory') / replicas / _MIB:.1f} MiB",
        "memory of a process, last tenth": f"{_mean(last, 'memory') / replicas / _MIB:.1f} MiB",
        "growth (allowed)": f"{_growth(run):+.1%} ({run.day.growth_allowed:.0%})",
        "descriptors, first and last tenth": f"{_mean(first, 'descriptors'):.0f}, {_mean(last, 'descriptors'):.0f}",
        "threads, first and last tenth": f"{_mean(first, 'threads'):.0f}, {_mean(last, 'threads'):.0f}",
        "nonces retained for": f"{run.day.retention:.0f} s",
        "Redis, at its fullest": f"{peak.redis_keys} keys, {peak.redis_memory / _MIB:.1f} MiB",
        "Redis, when the retention has passed": f"{run.keys_left} keys, {run.unsettled} unsettled",
        "lines of the logs": str(run.logs.lines),
        "memory of the simulated card API, which keeps all": f"{run.simulator_memory / _MIB:.0f} MiB",
        "complaints": str(len(found)),
    }


def as_text(run: Evidence, found: Sequence[str]) -> str:
    """Word a day for a terminal."""
    rows = figures(run, found)
    width = max(map(len, rows))
    return "\n".join([*found, *(f"{name:{width}}  {value}" for name, value in rows.items())])


def as_markdown(run: Evidence, found: Sequence[str]) -> str:
    """Word a day for a page."""
    rows = [f"| {name} | {value} |" for name, value in figures(run, found).items()]
    return "\n".join(["| | |", "|---|---:|", *rows])


def _mean(part: Sequence[Sample], name: str) -> float:
    return fmean(getattr(sample, name) for sample in part)


def _growth(run: Evidence) -> float:
    first, last = tenths(run)
    return _mean(last, "memory") / _mean(first, "memory") - 1
