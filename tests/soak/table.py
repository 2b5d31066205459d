"""The figures of a soak run as a table, for the terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tests.soak.resource_sampler import Sample
from tests.soak.verdict import SoakEvidence, first_and_last_tenth

_MIB = 2**20


def figures(run: SoakEvidence, found: Sequence[str]) -> dict[str, str]:
    """Return the figures in the order of the rows."""
    first, last = first_and_last_tenth(run)
    replicas = run.plan.replicas
    cpu = run.samples[-1].cpu - run.samples[0].cpu
    peak = max(run.samples, key=lambda sample: sample.redis_keys)
    return {
        "challenges": str(run.outcomes.total()),
        "ended": ", ".join(f"{count} {outcome}" for outcome, count in run.outcomes.most_common()),
        "requests of the wallets": str(run.requests),
        "challenges taken over": str(run.logs.events["challenge.taken_over"]),
        "times the circuit breaker opened": str(run.logs.events["card_api.breaker_opened"]),
        "seconds": f"{run.seconds:.0f}",
        "challenges a second": f"{run.outcomes.total() / run.seconds:.0f}",
        f"CPU of the service ({replicas} processes)": f"{cpu:.0f} s",
        "CPU of the service per challenge": f"{cpu / run.outcomes.total() * 1000:.2f} ms",
        "memory of a process, first tenth": f"{_mean(first, 'memory') / replicas / _MIB:.1f} MiB",
        "memory of a process, last tenth": f"{_mean(last, 'memory') / replicas / _MIB:.1f} MiB",
        "growth (allowed)": f"{_growth(run):+.1%} ({run.plan.growth_allowed:.0%})",
        "descriptors, first and last tenth": f"{_mean(first, 'descriptors'):.0f}, {_mean(last, 'descriptors'):.0f}",
        "threads, first and last tenth": f"{_mean(first, 'threads'):.0f}, {_mean(last, 'threads'):.0f}",
        "nonces retained for": f"{run.plan.retention:.0f} s",
        "Redis, at its fullest": f"{peak.redis_keys} keys, {peak.redis_memory / _MIB:.1f} MiB",
        "Redis, when the retention has passed": f"{run.keys_left} keys, {run.unsettled} unsettled",
        "lines of the logs": str(run.logs.lines),
        "memory of the simulated card API, which keeps all requests": f"{run.simulator_memory / _MIB:.0f} MiB",
        "violations": str(len(found)),
    }


def as_text(run: SoakEvidence, found: Sequence[str]) -> str:
    """Return the table as text."""
    rows = figures(run, found)
    width = max(map(len, rows))
    return "\n".join([*found, *(f"{name:{width}}  {value}" for name, value in rows.items())])


def as_markdown(run: SoakEvidence, found: Sequence[str]) -> str:
    """Return the table as Markdown."""
    rows = [f"| {name} | {value} |" for name, value in figures(run, found).items()]
    return "\n".join(["| | |", "|---|---:|", *rows])


def _mean(part: Sequence[Sample], name: str) -> float:
    return fmean(getattr(sample, name) for sample in part)


def _growth(run: SoakEvidence) -> float:
    first, last = first_and_last_tenth(run)
    return _mean(last, "memory") / _mean(first, "memory") - 1
