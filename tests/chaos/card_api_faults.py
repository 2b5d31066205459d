"""What the card API simulator does for each kind of fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.chaos.card_api import Row
from tests.chaos.plan import ChaosFaultKind

_K = ChaosFaultKind
_SLOW_SECONDS: Final = 1.6
"""Longer than the request timeout of the service: the API commits, and the response comes too late."""
_READS: Final = ("challenge", "customer", "customers", "create_customer")
"""Routes whose requests the service retries at once. A creation has an Idempotency-Key, so a retry is safe."""


def rows(kind: str, *routes: str, probability: float = 0.6, **more: object) -> tuple[Row, ...]:
    """Return the simulator's fault rows of one kind, one for each route."""
    return tuple({"kind": kind, "route": route, "probability": probability, **more} for route in routes)


def refused_signatures(key_id: str) -> tuple[Row, ...]:
    """Return rows that refuse every request signature under one key id."""
    return rows("refuse_signature", "sign", *_READS, probability=1.0, key_id=key_id)


CardApiFaults = tuple[Sequence[Row], Mapping[str, object]]
"""Rows of the fault table, and switches."""

CARD_API_FAULTS: Final[Mapping[ChaosFaultKind, CardApiFaults]] = {
    _K.API_SLOW: (rows("latency", "sign", *_READS, seconds=_SLOW_SECONDS), {}),
    _K.API_REQUESTS_DROPPED: (rows("drop_request", "sign", *_READS), {}),
    _K.API_RESPONSES_DROPPED: (rows("drop_reply", "sign", *_READS, "token"), {}),
    # A creation that got 500 is repeated, gets 409, and finds its customer in the list.
    _K.API_FAILS_AFTER_COMMIT: (rows("status_after_commit", "sign", "create_customer"), {}),
    _K.API_FAILS: (rows("status", "sign", *_READS, "token", status=503), {}),
    _K.API_REPLAYS_FAILURES: (rows("status", "sign", status=500), {"replayServerErrors": True}),
    _K.API_BUSY: (rows("status", "sign", *_READS, status=429, retry_after=1), {}),
    _K.API_CONFLICTS: (rows("conflict", "sign", "create_customer"), {}),
    _K.API_CONFLICTS_BARE: (rows("conflict", "sign"), {"bareConflicts": True}),
    _K.API_CUTS_RESPONSES: (rows("cut_reply", "sign", *_READS, "token"), {}),
    _K.API_TALKS_NONSENSE: ((*rows("garbage", "sign", *_READS), *rows("wrong_content_type", *_READS)), {}),
    _K.API_TALKS_TOO_MUCH: (rows("oversized", "sign", *_READS, size=1 << 21), {}),
    _K.API_REDIRECTS: (rows("redirect", "sign", *_READS), {}),
    # Not all of them: a replica that takes the 400 for a verdict must be able to read the customer's status afterwards.
    _K.API_REFUSES_SIGNATURES: (rows("refuse_signature", "sign", *_READS), {}),
    _K.API_REFUSES_FALSELY: (rows("status", "sign", status=400, probability=0.3), {}),
    _K.API_DATES_WRONGLY: (rows("wrong_date", "sign", *_READS, "token", seconds=7200.0), {}),
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
