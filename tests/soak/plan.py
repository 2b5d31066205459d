"""What a day in miniature is: how many challenges, in which mixture, and what is wrong with the card API meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

Row = Mapping[str, object]


class Manner(Enum):
    """How one customer's wallet behaves."""

    PLAIN = auto()
    GIVES_CHALLENGE = auto()
    REPEATS = auto()
    HOLDS_BACK = auto()
    NEVER_FORWARDS = auto()
    ONBOARDS = auto()
    IS_REFUSED = auto()


MIXTURE: Final[Mapping[Manner, int]] = {
    Manner.PLAIN: 68,
    Manner.GIVES_CHALLENGE: 8,
    Manner.REPEATS: 8,
    Manner.HOLDS_BACK: 5,
    Manner.NEVER_FORWARDS: 2,
    Manner.ONBOARDS: 6,
    Manner.IS_REFUSED: 3,
}
"""How many of a hundred."""

A_FEW_FAILURES: Final[tuple[Row, ...]] = (
    {"kind": "status", "route": "sign", "probability": 0.01},
    {"kind": "status_after_commit", "route": "sign", "probability": 0.005},
    {"kind": "drop_reply", "route": "sign", "probability": 0.003},
    {"kind": "conflict", "route": "sign", "probability": 0.003},
    {"kind": "status", "route": "challenge", "probability": 0.003},
)
"""What goes wrong all day long: 503, 500 after commit, a lost answer, 409 while in flight."""

AN_OUTAGE: Final[tuple[Row, ...]] = tuple(
    {"kind": "status", "route": route} for route in ("sign", "challenge", "customer")
)
"""The card API answers 503 to all that concerns challenges: the circuit breaker opens, and recovery delivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One run.

    Attributes:
        challenges: how many customers come.
        replicas: how many processes serve.
        at_once: how many customers are served at the same time.
        max_age: seconds that a challenge lives; nonces are retained for twice that.
        outages: of the card API, spread over the day.
        outage_seconds: how long each lasts.
        warm_up: the share of the day that is not judged: pools and caches fill.
        growth_allowed: by how much the mean memory of the last tenth may exceed that of the first.
        seed: of the mixture.
    """

    challenges: int = 100_000
    replicas: int = 2
    at_once: int = 24
    max_age: float = 60.0
    outages: int = 4
    outage_seconds: float = 4.0
    warm_up: float = 0.1
    growth_allowed: float = 0.05
    seed: int = 1

    @property
    def retention(self) -> float:
        """How long nonces, and with them all keys, are kept: seconds."""
        return 2 * self.max_age
