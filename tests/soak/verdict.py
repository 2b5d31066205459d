"""The evidence of a soak run, and the rules that must hold; each rule returns its problems as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from tests.soak.log_check import LogFindings
from tests.soak.plan import SoakPlan
from tests.soak.resource_sampler import Sample

_TENTHS: Final = 10
_KEYS_OF_A_CUSTOMER: Final = 3
"""A record, a pointer, and an intent if the service created the customer."""
_KEYS_BESIDE: Final = 400
"""The index and the readiness probe have some keys for each of 64 shards."""
_SLACK_SECONDS: Final = 15.0
"""Redis removes expired keys with a delay, and a customer counts only when it is finished."""
_DESCRIPTORS_ALLOWED: Final = 32
"""Connection pools grow to the highest peak, which may come in the last tenth."""
_THREADS_ALLOWED: Final = 4


@dataclass(frozen=True, kw_only=True)
class SoakEvidence:
    """The evidence of one run.

    Attributes:
        plan: plan of the run.
        seconds: duration of the load.
        samples: samples during the load, in the order of time.
        outcomes: number of customers by outcome.
        requests: number of requests of the wallets.
        unexpected: unexpected responses.
        logs: result of the log check.
        ledger: summary of the card API's ledger.
        keys_left: number of keys in Redis after the retention.
        unsettled: number of index entries at that time.
        exits: exit statuses of the replicas.
        simulator_memory: resident bytes of the simulated card API at the end.
    """

    plan: SoakPlan
    seconds: float
    samples: Sequence[Sample]
    outcomes: Counter[str]
    requests: int
    unexpected: Sequence[str]
    logs: LogFindings
    ledger: Mapping[str, int]
    keys_left: int
    unsettled: int
    exits: Sequence[int]
    simulator_memory: int


def first_and_last_tenth(run: SoakEvidence) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the samples of the first tenth after the warm-up, and of the last tenth."""
    kept = [sample for sample in run.samples if sample.done >= run.plan.warm_up * run.plan.challenges]
    size = max(len(kept) // _TENTHS, 1)
    return kept[:size], kept[-size:]


def memory_is_flat(run: SoakEvidence) -> Iterator[str]:
    """The mean of the last tenth exceeds that of the first by the allowed growth at most."""
    first, last = (fmean(sample.memory for sample in part) for part in first_and_last_tenth(run))
    if last > first * (1 + run.plan.growth_allowed):
        yield f"memory grew from {first / 2**20:.1f} to {last / 2**20:.1f} MiB"


def descriptors_and_threads_are_flat(run: SoakEvidence) -> Iterator[str]:
    """Connections and threads are pooled."""
    for name, allowed in (("descriptors", _DESCRIPTORS_ALLOWED), ("threads", _THREADS_ALLOWED)):
        first, last = (fmean(getattr(sample, name) for sample in part) for part in first_and_last_tenth(run))
        if last > first + allowed:
            yield f"{name} grew from {first:.0f} to {last:.0f}"


def redis_keys_expire(run: SoakEvidence) -> Iterator[str]:
    """Redis only has the keys of customers within the retention, and none after it."""
    kept_for = run.plan.retention + _SLACK_SECONDS
    for sample in run.samples:
        earlier = max((old.done for old in run.samples if old.at <= sample.at - kept_for), default=0)
        bound = _KEYS_OF_A_CUSTOMER * (sample.done - earlier + run.plan.concurrency) + _KEYS_BESIDE
        if sample.redis_keys > bound:
            yield f"Redis held {sample.redis_keys} keys where {bound} are allowed, after {sample.done} customers"
            break
    if run.keys_left:
        yield f"Redis holds {run.keys_left} keys after all have expired"


def the_index_is_empty(run: SoakEvidence) -> Iterator[str]:
    """All challenges are settled."""
    if run.unsettled:
        yield f"{run.unsettled} challenges are left in the index"


def every_customer_is_served_once(run: SoakEvidence) -> Iterator[str]:
    """All customers are finished; the card API got one signature and one Idempotency-Key for each challenge."""
    yield from run.unexpected
    if run.outcomes.total() != run.plan.challenges:
        yield f"{run.outcomes.total()} of {run.plan.challenges} customers are finished"
    for name in ("mostSignaturesForOneChallenge", "mostKeysForOneChallenge"):
        if run.ledger[name] > 1:
            yield f"the card API says {name}: {run.ledger[name]}"


def logs_are_valid(run: SoakEvidence) -> Iterator[str]:
    """The log has registered events, no errors and no secrets."""
    yield from run.logs.problems
    if not run.logs.lines:
        yield "the service wrote nothing"


def processes_stop_cleanly(run: SoakEvidence) -> Iterator[str]:
    """All replicas exit with 0 when they are asked to stop."""
    if any(run.exits) or len(run.exits) != run.plan.replicas:
        yield f"the processes exited with {list(run.exits)}"


RULES: Final = (
    every_customer_is_served_once,
    memory_is_flat,
    descriptors_and_threads_are_flat,
    redis_keys_expire,
    the_index_is_empty,
    logs_are_valid,
    processes_stop_cleanly,
)


def problems(run: SoakEvidence) -> list[str]:
    """Return the problems of all rules."""
    return [f"{rule.__name__}: {what}" for rule in RULES for what in rule(run)]
