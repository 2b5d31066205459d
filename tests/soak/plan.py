"""The plan of a soak run: how many challenges, which kinds of wallets, and which faults of the card API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

Row = Mapping[str, object]


class WalletBehaviour(Enum):
    """How the wallet of one customer behaves."""

    PLAIN = auto()
    GIVES_CHALLENGE = auto()
    REPEATS = auto()
    HOLDS_BACK = auto()
    NEVER_FORWARDS = auto()
    ONBOARDS = auto()
    IS_REFUSED = auto()


MIXTURE: Final[Mapping[WalletBehaviour, int]] = {
    WalletBehaviour.PLAIN: 68,
    WalletBehaviour.GIVES_CHALLENGE: 8,
    WalletBehaviour.REPEATS: 8,
    WalletBehaviour.HOLDS_BACK: 5,
    WalletBehaviour.NEVER_FORWARDS: 2,
    WalletBehaviour.ONBOARDS: 6,
    WalletBehaviour.IS_REFUSED: 3,
}
"""Percentages."""

BACKGROUND_FAULTS: Final[tuple[Row, ...]] = (
    {"kind": "status", "route": "sign", "probability": 0.01},
    {"kind": "status_after_commit", "route": "sign", "probability": 0.005},
    {"kind": "drop_reply", "route": "sign", "probability": 0.003},
    {"kind": "conflict", "route": "sign", "probability": 0.003},
    {"kind": "refuse_signature", "route": "sign", "probability": 0.003},
    {"kind": "status", "route": "challenge", "probability": 0.003},
)
"""Faults during the whole run: 503, 500 after commit, a lost response, 409 while in flight, a refused request."""

OUTAGE_FAULTS: Final[tuple[Row, ...]] = tuple(
    {"kind": "status", "route": route} for route in ("sign", "challenge", "customer")
)
"""The card API responds with 503 to challenge requests: the circuit breaker opens, and recovery delivers later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPlan:
    """The plan of one run.

    Attributes:
        challenges: number of customers, with one challenge each.
        replicas: number of replicas.
        concurrency: number of customers that are served concurrently.
        max_age: lifetime of a challenge in seconds; nonces are retained twice as long.
        outages: number of outages of the card API, spread over the run.
        outage_seconds: duration of each.
        warm_up: share of the run that is not measured, because pools and caches fill.
        growth_allowed: by how much the mean memory of the last tenth may exceed that of the first.
        seed: of all random choices.
    """

    challenges: int = 100_000
    replicas: int = 2
    concurrency: int = 24
    max_age: float = 60.0
    outages: int = 4
    outage_seconds: float = 4.0
    warm_up: float = 0.1
    growth_allowed: float = 0.05
    seed: int = 1

    @property
    def retention(self) -> float:
        """Seconds that nonces, and thus all keys in Redis, are kept."""
        return 2 * self.max_age
