"""The plan of a run: how much load, which faults, and when. The same seed gives the same plan.

In a **fault phase** faults are injected by schedule and overlap. After each phase one replica is killed **in
isolation**, without any other fault, so that the time until another replica delivers its signatures is the design's
own figure. A plan does not determine which request meets which fault: a repeated run has the same faults, and other
races.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class ChaosFaultKind(StrEnum):
    """All kinds of faults; the values are rows of the result table."""

    REPLICA_KILLED_ALONE = "replica killed (-9), nothing else wrong"
    REPLICA_KILLED = "replica killed (-9)"
    REPLICA_KILLED_AT_MOVE = "replica killed (-9) behind a move in the store"
    REPLICA_STALLED = "replica stalled (SIGSTOP)"
    REPLICA_STALLED_PAST_LEASE = "replica stalled (SIGSTOP) past its lease"
    REPLICA_STALLED_AT_MOVE = "replica stalled past its lease, behind a move in the store"
    REPLICA_TERMINATED = "replica terminated (SIGTERM, twice)"
    STORE_PAUSED = "store paused (CLIENT PAUSE)"
    STORE_STALLED = "store stalled (SIGSTOP)"
    STORE_KILLED = "store killed (-9), restarted with its file"
    STORE_SCRIPTS_FORGOTTEN = "store's scripts flushed (NOSCRIPT)"
    STORE_RESPONSES_LOST = "store's responses lost after commit"
    STORE_CONNECTIONS_CUT = "store's connections cut"
    STORE_CUT_OFF = "one replica cut off from the store"
    STORE_PRIMARY_KILLED = "store's primary killed (-9), back as a replica"
    STORE_PRIMARY_STALLED = "store's primary stalled (SIGSTOP) past the failover, then woken"
    STORE_FAILED_OVER = "store failed over by command"
    STORE_REPLICA_STALLED = "store's replica stalled (SIGSTOP)"
    API_STALLED = "card API stalled (SIGSTOP)"
    API_CUT_OFF = "one replica cut off from the card API"
    API_RESPONSES_LOST = "card API's responses lost on the way, after commit"
    API_SLOW = "card API slow"
    API_REQUESTS_DROPPED = "card API drops requests"
    API_RESPONSES_DROPPED = "card API drops responses after commit"
    API_FAILS_AFTER_COMMIT = "card API responds 500 after commit"
    API_FAILS = "card API responds 503"
    API_REPLAYS_FAILURES = "card API responds 500, and again for the same key"
    API_BUSY = "card API responds 429 with Retry-After"
    API_CONFLICTS = "card API responds 409, in flight"
    API_CONFLICTS_BARE = "card API responds 409 without a body"
    API_CUTS_RESPONSES = "card API cuts its responses"
    API_TALKS_NONSENSE = "card API responds with garbage"
    API_TALKS_TOO_MUCH = "card API's responses are oversized"
    API_REDIRECTS = "card API redirects"
    API_REFUSES_SIGNATURES = "card API refuses request signatures (400 in plain text)"
    API_REFUSES_REPLICA = "card API refuses one replica's request signatures"
    API_REFUSES_FALSELY = "card API refuses (400) what is right"
    API_DENIES_CUSTOMERS = "card API denies customers (404)"
    API_GIVES_WRONG_CHALLENGES = "card API gives wrong challenges"
    API_DATES_WRONGLY = "a proxy's Date is two hours ahead"
    API_REVOKES_TOKENS = "card API revokes its tokens"
    API_REPLACES_CHALLENGES = "card API replaces challenges"


_K = ChaosFaultKind
MOVES: Final = ("claim", "record_signature", "begin_forwarding", "settle", "defer")
"""Moves after which a replica is killed or stalled: the store made the move, the replica has not continued yet."""

_FAULT_WEIGHTS: Final[dict[ChaosFaultKind, int]] = {
    _K.REPLICA_KILLED: 3,
    _K.REPLICA_KILLED_AT_MOVE: 4,
    _K.REPLICA_STALLED: 3,
    _K.REPLICA_STALLED_PAST_LEASE: 2,
    _K.REPLICA_STALLED_AT_MOVE: 4,
    _K.REPLICA_TERMINATED: 2,
    _K.STORE_PAUSED: 4,
    _K.STORE_SCRIPTS_FORGOTTEN: 2,
    _K.STORE_RESPONSES_LOST: 10,
    _K.STORE_CONNECTIONS_CUT: 4,
    _K.STORE_CUT_OFF: 4,
    _K.API_STALLED: 2,
    _K.API_CUT_OFF: 4,
    _K.API_RESPONSES_LOST: 6,
    _K.API_SLOW: 6,
    _K.API_REQUESTS_DROPPED: 3,
    _K.API_RESPONSES_DROPPED: 5,
    _K.API_FAILS_AFTER_COMMIT: 4,
    _K.API_FAILS: 3,
    _K.API_REPLAYS_FAILURES: 1,
    _K.API_BUSY: 3,
    _K.API_CONFLICTS: 3,
    _K.API_CONFLICTS_BARE: 2,
    _K.API_CUTS_RESPONSES: 3,
    _K.API_TALKS_NONSENSE: 3,
    _K.API_TALKS_TOO_MUCH: 1,
    _K.API_REDIRECTS: 2,
    _K.API_REFUSES_SIGNATURES: 3,
    _K.API_REFUSES_REPLICA: 2,
    _K.API_REFUSES_FALSELY: 1,
    _K.API_DENIES_CUSTOMERS: 1,
    _K.API_GIVES_WRONG_CHALLENGES: 2,
    _K.API_DATES_WRONGLY: 2,
    _K.API_REVOKES_TOKENS: 2,
    _K.API_REPLACES_CHALLENGES: 3,
}
"""How often each kind comes; those that test the guarantees most come most often."""

SINGLE: Final = "single"
_ONE_SERVER: Final = {_K.STORE_STALLED: 3, _K.STORE_KILLED: 1}
_WITH_REPLICAS: Final = {
    _K.STORE_PRIMARY_KILLED: 8,
    _K.STORE_PRIMARY_STALLED: 8,
    _K.STORE_FAILED_OVER: 8,
    _K.STORE_REPLICA_STALLED: 5,
}


def fault_weights_for(store: str) -> dict[ChaosFaultKind, int]:
    """Return how often each kind of fault comes, for one kind of store."""
    return _FAULT_WEIGHTS | (_ONE_SERVER if store == SINGLE else _WITH_REPLICAS)


LEASE_SECONDS: Final = 5.0
_PAST_LEASE: Final = frozenset({_K.REPLICA_STALLED_PAST_LEASE, _K.REPLICA_STALLED_AT_MOVE})
_ENDS_A_REPLICA: Final = frozenset({_K.REPLICA_KILLED, _K.REPLICA_KILLED_AT_MOVE, _K.REPLICA_TERMINATED})
_FAILOVER_SECONDS: Final = 6.0
"""Duration of a store failover until all servers are healthy again; failovers do not overlap."""
_RESTART_SECONDS: Final = 3.0
"""Time at the end of a phase in which a replica can restart."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One planned fault.

    Attributes:
        at: seconds after the start of its phase.
        kind: kind of fault.
        seconds: duration.
        replica: the intended replica; if it is busy with another fault, the next one is taken.
        move: the move to wait for, for kinds that have one.
        seed: of the random choices within the fault.
    """

    at: float
    kind: ChaosFaultKind
    seconds: float
    replica: int
    move: str
    seed: int


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault that was injected.

    Attributes:
        began: Unix seconds.
        ended: Unix seconds.
        kind: kind of fault.
        target: name of the process, for faults of a replica.
    """

    began: float
    ended: float
    kind: ChaosFaultKind
    target: str

    def __str__(self) -> str:
        return f"fault   {self.target:5} {self.kind}, for {self.ended - self.began:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of one run.

    Attributes:
        seed: of all random choices.
        challenges: number of customers.
        faults: number of faults.
        replicas: number of replicas.
        load_seconds: time over which the customers arrive.
        lease: seconds; recovery may take the lease plus one second.
        answer_within: the service's longest response time, seconds.
        max_age: lifetime of a challenge, seconds; it expires if it is not delivered by then.
        fault_weights: how often each kind of fault comes; default: all kinds.
        moves: moves after which a replica is killed or stalled.
        store: kind of store.
        mutation: guarantee to switch off, to test that the run detects it.
        hsm: whether half of the keys are in SoftHSM.
    """

    seed: int = 1
    challenges: int = 2000
    faults: int = 200
    replicas: int = 3
    load_seconds: float = 120.0
    lease: float = LEASE_SECONDS
    answer_within: float = 3.0
    max_age: float = 30.0
    fault_weights: dict[ChaosFaultKind, int] = field(default_factory=lambda: fault_weights_for(SINGLE))
    moves: tuple[str, ...] = MOVES
    store: str = SINGLE
    mutation: str | None = None
    hsm: bool = True

    @classmethod
    def of_size(cls, seed: int, challenges: int, faults: int, **more: Any) -> Plan:  # noqa: ANN401 - fields of a plan
        """Return a plan with enough time for the challenges and faults on two cores."""
        plan = replace(cls(seed=seed, challenges=challenges, faults=faults), **more)
        fault_weights = plan.fault_weights if "fault_weights" in more else fault_weights_for(plan.store)
        share_of_failovers = sum(fault_weights.get(kind, 0) for kind in _WITH_REPLICAS) / sum(fault_weights.values())
        return replace(
            plan,
            fault_weights=fault_weights,
            load_seconds=max(faults * 0.44, challenges * 0.05)
            + isolated_kill_count(faults) * isolated_kill_seconds(LEASE_SECONDS)
            + faults * share_of_failovers * _FAILOVER_SECONDS,
        )


def isolated_kill_count(faults: int) -> int:
    """Return how many of the faults are isolated kills."""
    return min(max(faults // 40, 1), 6)


def isolated_kill_seconds(lease: float) -> float:
    """Return the duration of one isolated kill: the lease, and time for the other replicas to be healthy before."""
    return lease + 6.0


def fault_phases(plan: Plan) -> Sequence[Sequence[PlannedFault]]:
    """Return the faults of each phase in the order of time; an isolated kill follows each phase."""
    rng = random.Random(f"faults of {plan.seed}")
    count = isolated_kill_count(plan.faults)
    seconds = max(plan.load_seconds - count * isolated_kill_seconds(plan.lease), 1.0) / count
    kinds = _draw(plan, plan.faults - count, rng)
    return [
        sorted((_fault(kind, seconds, plan, rng) for kind in kinds[number::count]), key=lambda fault: fault.at)
        for number in range(count)
    ]


def _draw(plan: Plan, count: int, rng: random.Random) -> list[ChaosFaultKind]:
    """Draw every kind by its weight before any kind is drawn again."""
    kinds: list[ChaosFaultKind] = []
    while len(kinds) < count:
        fault_weights = [kind for kind, times in plan.fault_weights.items() for _ in range(times)]
        rng.shuffle(fault_weights)
        kinds += fault_weights
    return kinds[:count]


def _fault(kind: ChaosFaultKind, phase: float, plan: Plan, rng: random.Random) -> PlannedFault:
    seconds = plan.lease + rng.uniform(0.3, 2.0) if kind in _PAST_LEASE else rng.choice((0.2, 0.6, 1.2, 2.5))
    ends_with = seconds + (_RESTART_SECONDS if kind in _ENDS_A_REPLICA else 0.5)
    return PlannedFault(
        at=rng.uniform(0.0, max(phase - ends_with, 0.5)),
        kind=kind,
        seconds=seconds,
        replica=rng.randrange(plan.replicas),
        move=rng.choice(plan.moves),
        seed=rng.randrange(1 << 32),
    )
