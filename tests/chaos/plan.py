"""What a run is to do: how much load, which faults, and when. A seed gives the same plan again.

A run alternates two kinds of weather. In a **storm** faults strike as the schedule has them, on top of each other. In
between, a replica is killed **alone**: nothing else is wrong, so how long it takes until another replica delivers what
the dead one held is the design's own figure. What a plan cannot fix is which request meets which fault: a run that
starts again from its seed sees the same faults, not the same races.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class FaultKind(StrEnum):
    """Everything that is done to a site; the values are the table's rows."""

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
    STORE_ANSWERS_LOST = "store's answers lost after commit"
    STORE_CONNECTIONS_CUT = "store's connections cut"
    STORE_CUT_OFF = "one replica cut off from the store"
    STORE_PRIMARY_KILLED = "store's primary killed (-9), back as a replica"
    STORE_PRIMARY_STALLED = "store's primary stalled (SIGSTOP) past the failover, then woken"
    STORE_FAILED_OVER = "store failed over by command"
    STORE_REPLICA_STALLED = "store's replica stalled (SIGSTOP)"
    API_STALLED = "card API stalled (SIGSTOP)"
    API_CUT_OFF = "one replica cut off from the card API"
    API_ANSWERS_LOST = "card API's answers lost on the way, after commit"
    API_SLOW = "card API slow"
    API_REQUESTS_DROPPED = "card API drops requests"
    API_ANSWERS_DROPPED = "card API drops answers after commit"
    API_FAILS_AFTER_COMMIT = "card API answers 500 after commit"
    API_FAILS = "card API answers 503"
    API_REPLAYS_FAILURES = "card API answers 500, and again for the same key"
    API_BUSY = "card API answers 429 with Retry-After"
    API_CONFLICTS = "card API answers 409, in flight"
    API_CONFLICTS_BARE = "card API answers 409 without a body"
    API_CUTS_ANSWERS = "card API cuts its answers"
    API_TALKS_NONSENSE = "card API answers garbage"
    API_TALKS_TOO_MUCH = "card API's answers are oversized"
    API_REDIRECTS = "card API redirects"
    API_REFUSES_FALSELY = "card API refuses (400) what is right"
    API_DENIES_CUSTOMERS = "card API denies customers (404)"
    API_GIVES_WRONG_CHALLENGES = "card API gives wrong challenges"
    API_REVOKES_TOKENS = "card API revokes its tokens"
    API_REPLACES_CHALLENGES = "card API replaces challenges"


_K = FaultKind
MOVES: Final = ("claim", "record_signature", "begin_forwarding", "settle", "defer")
"""The moves behind which a replica is caught: the store has made it, and the replica has not gone on yet."""

_DECK: Final[dict[FaultKind, int]] = {
    _K.REPLICA_KILLED: 3,
    _K.REPLICA_KILLED_AT_MOVE: 4,
    _K.REPLICA_STALLED: 3,
    _K.REPLICA_STALLED_PAST_LEASE: 2,
    _K.REPLICA_STALLED_AT_MOVE: 4,
    _K.REPLICA_TERMINATED: 2,
    _K.STORE_PAUSED: 4,
    _K.STORE_SCRIPTS_FORGOTTEN: 2,
    _K.STORE_ANSWERS_LOST: 10,
    _K.STORE_CONNECTIONS_CUT: 4,
    _K.STORE_CUT_OFF: 4,
    _K.API_STALLED: 2,
    _K.API_CUT_OFF: 4,
    _K.API_ANSWERS_LOST: 6,
    _K.API_SLOW: 6,
    _K.API_REQUESTS_DROPPED: 3,
    _K.API_ANSWERS_DROPPED: 5,
    _K.API_FAILS_AFTER_COMMIT: 4,
    _K.API_FAILS: 3,
    _K.API_REPLAYS_FAILURES: 1,
    _K.API_BUSY: 3,
    _K.API_CONFLICTS: 3,
    _K.API_CONFLICTS_BARE: 2,
    _K.API_CUTS_ANSWERS: 3,
    _K.API_TALKS_NONSENSE: 3,
    _K.API_TALKS_TOO_MUCH: 1,
    _K.API_REDIRECTS: 2,
    _K.API_REFUSES_FALSELY: 1,
    _K.API_DENIES_CUSTOMERS: 1,
    _K.API_GIVES_WRONG_CHALLENGES: 2,
    _K.API_REVOKES_TOKENS: 2,
    _K.API_REPLACES_CHALLENGES: 3,
}
"""How often each kind comes; those that cost the guarantee most come most."""

SINGLE: Final = "single"
_ONE_SERVER: Final = {_K.STORE_STALLED: 3, _K.STORE_KILLED: 1}
_WITH_REPLICAS: Final = {
    _K.STORE_PRIMARY_KILLED: 8,
    _K.STORE_PRIMARY_STALLED: 8,
    _K.STORE_FAILED_OVER: 8,
    _K.STORE_REPLICA_STALLED: 5,
}


def deck_for(store: str) -> dict[FaultKind, int]:
    """Give the kinds of fault for a topology of the store, and how often each comes."""
    return _DECK | (_ONE_SERVER if store == SINGLE else _WITH_REPLICAS)


LEASE_SECONDS: Final = 5.0
_PAST_LEASE: Final = frozenset({_K.REPLICA_STALLED_PAST_LEASE, _K.REPLICA_STALLED_AT_MOVE})
_ENDS_A_REPLICA: Final = frozenset({_K.REPLICA_KILLED, _K.REPLICA_KILLED_AT_MOVE, _K.REPLICA_TERMINATED})
_FAILOVER_SECONDS: Final = 6.0
"""What a failover of the store takes until all is well again; one comes after the other."""
_RESTART_SECONDS: Final = 3.0
"""What a storm leaves at its end for a replica to be back."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done.

    Attributes:
        at: when, in seconds of its storm.
        kind: what.
        seconds: how long it lasts.
        replica: which one it is meant for; the next that can be struck is taken where that one cannot.
        move: behind which move, for the kinds that have one.
        dice: seeds what the fault itself leaves to chance.
    """

    at: float
    kind: FaultKind
    seconds: float
    replica: int
    move: str
    dice: int


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault that struck.

    Attributes:
        began: Unix seconds.
        ended: Unix seconds.
        kind: which.
        whom: which life of which replica, where it struck one.
    """

    began: float
    ended: float
    kind: FaultKind
    whom: str

    def __str__(self) -> str:
        return f"fault   {self.whom:5} {self.kind}, for {self.ended - self.began:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
        seed: of everything.
        challenges: how many customers come.
        faults: how many strike.
        replicas: how many processes serve.
        load_seconds: over how long the customers come.
        lease: seconds; what the service has to recover within, and a second.
        answer_within: seconds that a caller waits at most.
        max_age: seconds that a challenge lives; what is left undelivered for so long is expired.
        deck: the kinds of fault to draw from, and how often each; all by default.
        moves: those behind which a replica is caught.
        store: the name of the store's topology.
        mutation: the guarantee that is switched off, for the test that this is noticed.
        hsm: whether half of the owners' keys are in SoftHSM.
    """

    seed: int = 1
    challenges: int = 2000
    faults: int = 200
    replicas: int = 3
    load_seconds: float = 120.0
    lease: float = LEASE_SECONDS
    answer_within: float = 3.0
    max_age: float = 30.0
    deck: dict[FaultKind, int] = field(default_factory=lambda: deck_for(SINGLE))
    moves: tuple[str, ...] = MOVES
    store: str = SINGLE
    mutation: str | None = None
    hsm: bool = True

    @classmethod
    def of_size(cls, seed: int, challenges: int, faults: int, **more: Any) -> Plan:  # noqa: ANN401 - fields of a plan
        """Give a run of that many challenges and faults the time that they need on two cores."""
        plan = replace(cls(seed=seed, challenges=challenges, faults=faults), **more)
        deck = plan.deck if "deck" in more else deck_for(plan.store)
        share_of_failovers = sum(deck.get(kind, 0) for kind in _WITH_REPLICAS) / sum(deck.values())
        return replace(
            plan,
            deck=deck,
            load_seconds=max(faults * 0.44, challenges * 0.05)
            + alone_count(faults) * alone_seconds(LEASE_SECONDS)
            + faults * share_of_failovers * _FAILOVER_SECONDS,
        )


def alone_count(faults: int) -> int:
    """Tell how many of so many faults are kills with nothing else wrong."""
    return min(max(faults // 40, 1), 6)


def alone_seconds(lease: float) -> float:
    """Tell how long one of them is given: the lease, a second, and what the others need to be well before."""
    return lease + 6.0


def storms(plan: Plan) -> Sequence[Sequence[Fault]]:
    """Give the faults of each storm, by their time; behind each storm a replica is killed alone."""
    dice = random.Random(f"faults of {plan.seed}")
    count = alone_count(plan.faults)
    seconds = max(plan.load_seconds - count * alone_seconds(plan.lease), 1.0) / count
    kinds = _draw(plan, plan.faults - count, dice)
    return [
        sorted((_fault(kind, seconds, plan, dice) for kind in kinds[number::count]), key=lambda fault: fault.at)
        for number in range(count)
    ]


def _draw(plan: Plan, count: int, dice: random.Random) -> list[FaultKind]:
    """Deal the whole deck before it is shuffled again, so that no kind is forgotten."""
    kinds: list[FaultKind] = []
    while len(kinds) < count:
        deck = [kind for kind, times in plan.deck.items() for _ in range(times)]
        dice.shuffle(deck)
        kinds += deck
    return kinds[:count]


def _fault(kind: FaultKind, storm: float, plan: Plan, dice: random.Random) -> Fault:
    seconds = plan.lease + dice.uniform(0.3, 2.0) if kind in _PAST_LEASE else dice.choice((0.2, 0.6, 1.2, 2.5))
    ends_with = seconds + (_RESTART_SECONDS if kind in _ENDS_A_REPLICA else 0.5)
    return Fault(
        at=dice.uniform(0.0, max(storm - ends_with, 0.5)),
        kind=kind,
        seconds=seconds,
        replica=dice.randrange(plan.replicas),
        move=dice.choice(plan.moves),
        dice=dice.randrange(1 << 32),
    )
