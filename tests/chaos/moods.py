"""The moods of the card API: for each kind of fault, what its simulator is told to do for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.chaos.card_api import Row
from tests.chaos.plan import FaultKind

_K = FaultKind
_SLOW_SECONDS: Final = 1.6
"""Longer than the service waits for the API: it commits, and nobody hears of it."""
_READS: Final = ("challenge", "customer", "create_customer")
"""Routes whose requests are repeated at once. A customer is created under one key, so that this changes nothing."""


def rows(kind: str, *routes: str, probability: float = 0.6, **more: object) -> tuple[Row, ...]:
    """Make the simulator's rows of one kind of fault, one a route."""
    return tuple({"kind": kind, "route": route, "probability": probability, **more} for route in routes)


Mood = tuple[Sequence[Row], Mapping[str, object]]
"""Rows of its table of faults, and lasting switches."""

MOOD_FOR_KIND: Final[Mapping[FaultKind, Mood]] = {
    _K.API_SLOW: (rows("latency", "sign", *_READS, seconds=_SLOW_SECONDS), {}),
    _K.API_REQUESTS_DROPPED: (rows("drop_request", "sign", *_READS), {}),
    _K.API_ANSWERS_DROPPED: (rows("drop_reply", "sign", *_READS, "token"), {}),
    _K.API_FAILS_AFTER_COMMIT: (rows("status_after_commit", "sign"), {}),
    _K.API_FAILS: (rows("status", "sign", *_READS, "token", status=503), {}),
    _K.API_REPLAYS_FAILURES: (rows("status", "sign", status=500), {"replayServerErrors": True}),
    _K.API_BUSY: (rows("status", "sign", *_READS, status=429, retry_after=1), {}),
    _K.API_CONFLICTS: (rows("conflict", "sign", "create_customer"), {}),
    _K.API_CONFLICTS_BARE: (rows("conflict", "sign"), {"bareConflicts": True}),
    _K.API_CUTS_ANSWERS: (rows("cut_reply", "sign", *_READS, "token"), {}),
    _K.API_TALKS_NONSENSE: ((*rows("garbage", "sign", *_READS), *rows("wrong_content_type", *_READS)), {}),
    _K.API_TALKS_TOO_MUCH: (rows("oversized", "sign", *_READS, size=1 << 21), {}),
    _K.API_REDIRECTS: (rows("redirect", "sign", *_READS), {}),
    _K.API_REFUSES_FALSELY: (rows("status", "sign", status=400, probability=0.3), {}),
    _K.API_DENIES_CUSTOMERS: (rows("status", "sign", "challenge", status=404, probability=0.3), {}),
    _K.API_GIVES_WRONG_CHALLENGES: (
        (
            *rows("challenge_pem", "challenge", probability=0.3),
            *rows("challenge_other_owner", "challenge", probability=0.3),
            *rows("challenge_other_domain", "challenge", probability=0.3),
        ),
        {},
    ),
}
