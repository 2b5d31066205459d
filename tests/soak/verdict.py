"""What a day leaves behind, and what must be true of it; each rule complains in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from tests.soak.logs import LogFindings
from tests.soak.meters import Sample
from tests.soak.plan import Day

_TENTHS: Final = 10
_KEYS_OF_A_CUSTOMER: Final = 3
"""A record, a pointer, and an intent where the service created him."""
_KEYS_BESIDE: Final = 400
"""The index and the readiness probe have a few for each of 64 shards."""
_SLACK_SECONDS: Final = 15.0
"""Redis sweeps what has expired a little later; a customer comes a little earlier than he is done."""
_DESCRIPTORS_ALLOWED: Final = 32
"""Pools of connections grow to the highest peak so far, and the last tenth may have seen a higher one."""
_THREADS_ALLOWED: Final = 4


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One day.

    Attributes:
        day: what was planned.
        seconds: how long the load lasted.
        samples: by time, load only.
        endings: how often customers came to which end.
        requests: how many the wallets sent.
        surprises: what should not have been.
        logs: what the service wrote.
        ledger: the card API's own summary.
        keys_left: in Redis, when the retention had passed.
        unsettled: entries left in the index then.
        exits: of the processes of the service.
        simulator_memory: resident bytes of the card API at the end, which keeps everything.
    """

    day: Day
    seconds: float
    samples: Sequence[Sample]
    endings: Counter[str]
    requests: int
    surprises: Sequence[str]
    logs: LogFindings
    ledger: Mapping[str, int]
    keys_left: int
    unsettled: int
    exits: Sequence[int]
    simulator_memory: int


def tenths(run: Evidence) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Give the samples of the first tenth behind the warm-up, and those of the last."""
    kept = [sample for sample in run.samples if sample.done >= run.day.warm_up * run.day.challenges]
    size = max(len(kept) // _TENTHS, 1)
    return kept[:size], kept[-size:]


def memory_is_flat(run: Evidence) -> Iterator[str]:
    """The mean of the last tenth is at most so much above that of the first."""
    first, last = (fmean(sample.memory for sample in part) for part in tenths(run))
    if last > first * (1 + run.day.growth_allowed):
        yield f"memory grew from {first / 2**20:.1f} to {last / 2**20:.1f} MiB"


def descriptors_and_threads_are_flat(run: Evidence) -> Iterator[str]:
    """Connections are pooled, and threads too."""
    for name, allowed in (("descriptors", _DESCRIPTORS_ALLOWED), ("threads", _THREADS_ALLOWED)):
        first, last = (fmean(getattr(sample, name) for sample in part) for part in tenths(run))
        if last > first + allowed:
            yield f"{name} grew from {first:.0f} to {last:.0f}"


def redis_keeps_what_it_is_told_to(run: Evidence) -> Iterator[str]:
    """Never more keys than those of the customers who came within the retention; none when it has passed."""
    kept_for = run.day.retention + _SLACK_SECONDS
    for sample in run.samples:
        earlier = max((old.done for old in run.samples if old.at <= sample.at - kept_for), default=0)
        bound = _KEYS_OF_A_CUSTOMER * (sample.done - earlier + run.day.at_once) + _KEYS_BESIDE
        if sample.redis_keys > bound:
            yield f"Redis held {sample.redis_keys} keys where {bound} can be, after {sample.done} customers"
            break
    if run.keys_left:
        yield f"Redis holds {run.keys_left} keys when all have expired"


def the_index_is_empty(run: Evidence) -> Iterator[str]:
    """Everything has come to its end."""
    if run.unsettled:
        yield f"{run.unsettled} challenges are left in the index"


def everybody_got_what_he_came_for(run: Evidence) -> Iterator[str]:
    """All customers are through, the card API verified one signature of each challenge, under one key."""
    yield from run.surprises
    if run.endings.total() != run.day.challenges:
        yield f"{run.endings.total()} of {run.day.challenges} customers are through"
    for name in ("mostSignaturesForOneChallenge", "mostKeysForOneChallenge"):
        if run.ledger[name] > 1:
            yield f"the card API says {name}: {run.ledger[name]}"


def logs_are_in_order(run: Evidence) -> Iterator[str]:
    """Registered events, no errors, no secrets."""
    yield from run.logs.complaints
    if not run.logs.lines:
        yield "the service wrote nothing"


def processes_end_well(run: Evidence) -> Iterator[str]:
    """Asked to stop, they do, with 0."""
    if any(run.exits) or len(run.exits) != run.day.replicas:
        yield f"the processes ended with {list(run.exits)}"


RULES: Final = (
    everybody_got_what_he_came_for,
    memory_is_flat,
    descriptors_and_threads_are_flat,
    redis_keeps_what_it_is_told_to,
    the_index_is_empty,
    logs_are_in_order,
    processes_end_well,
)


def complaints(run: Evidence) -> list[str]:
    """Ask every rule."""
    return [f"{rule.__name__}: {what}" for rule in RULES for what in rule(run)]
