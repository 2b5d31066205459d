"""What really arrived: one entry for every ``POST …/challenge/sign``, and counters for every route.

A test asks it for the things that must hold whatever fails: one accepted delivery, one Idempotency-Key, no two
signatures for one challenge. Signatures and challenges are entered as SHA-256 digests.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Fate(StrEnum):
    """What became of an answer on the wire."""

    SENT = "sent"
    SPOILT = "spoilt"
    CUT = "cut"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One delivery.

    Attributes:
        at: when it was answered, seconds since the epoch on the simulator's clock.
        customer_id: from the path.
        owner_id: from the body; ``None`` where it has none, as with the next three.
        idempotency_key: from the field.
        signature_sha256: hex SHA-256 of the signature field's text.
        challenge_sha256: hex SHA-256 of the challenge's decoded bytes.
        status: what the API decided; ``None`` where the request was dropped unread.
        code: the error code, where it decided against.
        verified: whether this very delivery was verified, accepted and changed the customer.
        replayed: whether it was answered from the idempotency book.
        fate: what became of the answer.
    """

    at: float
    customer_id: str
    owner_id: str | None
    idempotency_key: str | None
    signature_sha256: str | None
    challenge_sha256: str | None
    status: int | None
    code: str | None
    verified: bool
    replayed: bool
    fate: Fate

    def to_json(self) -> dict[str, Any]:
        """The entry as the admin surface tells it."""
        return {
            "at": self.at,
            "customerId": self.customer_id,
            "ownerId": self.owner_id,
            "idempotencyKey": self.idempotency_key,
            "signatureSha256": self.signature_sha256,
            "challengeSha256": self.challenge_sha256,
            "status": self.status,
            "code": self.code,
            "verified": self.verified,
            "replayed": self.replayed,
            "fate": self.fate.value,
        }


class Ledger:
    """The entries in the order of their answers, and the counters."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[LedgerEntry] = deque(maxlen=limit)
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def count(self, route: str, status: int | None, fate: Fate) -> None:
        """Count an answer: under its status where it was sent or spoilt, else under what became of it."""
        outcome = str(status) if status is not None and fate in (Fate.SENT, Fate.SPOILT) else fate.value
        self._outcomes[route][outcome] += 1

    def enter(self, entry: LedgerEntry) -> None:
        """Write one delivery down."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Begin a new page."""
        self._entries.clear()
        self._outcomes.clear()

    def entries(self, customer_id: str | None = None) -> list[LedgerEntry]:
        """All deliveries, or those for one customer."""
        return [entry for entry in self._entries if customer_id in (None, entry.customer_id)]

    def outcomes(self, route: str) -> Counter[str]:
        """How often a route was answered with what."""
        return Counter(self._outcomes[route])

    def calls(self, route: str) -> int:
        """How often a route was called."""
        return self._outcomes[route].total()

    def to_json(self, customer_id: str | None = None) -> dict[str, Any]:
        """Entries, counters and summary as the admin surface tells them."""
        entries = self.entries(customer_id)
        return {
            "entries": [entry.to_json() for entry in entries],
            "counters": {route: dict(outcomes) for route, outcomes in self._outcomes.items()},
            "summary": summarise(entries),
        }


def summarise(entries: Iterable[LedgerEntry]) -> dict[str, int]:
    """The few numbers that a test of a whole run looks at.

    ``verified`` deliveries, distinct ``customersVerified``, and the greatest number of distinct signatures and of
    distinct Idempotency-Keys that were seen for one challenge. Where nothing went wrong, the last two are 1.
    """
    signatures: defaultdict[str, set[str]] = defaultdict(set)
    keys: defaultdict[str, set[str]] = defaultdict(set)
    verified: Counter[str] = Counter()
    for entry in entries:
        if entry.verified:
            verified[entry.customer_id] += 1
        if entry.challenge_sha256 is None:
            continue
        if entry.signature_sha256 is not None:
            signatures[entry.challenge_sha256].add(entry.signature_sha256)
        if entry.idempotency_key is not None:
            keys[entry.challenge_sha256].add(entry.idempotency_key)
    return {
        "verified": verified.total(),
        "customersVerified": len(verified),
        "mostSignaturesForOneChallenge": max(map(len, signatures.values()), default=0),
        "mostKeysForOneChallenge": max(map(len, keys.values()), default=0),
    }


@dataclass(frozen=True, slots=True)
class DeliveredBody:
    """What a delivery's body says, as far as it can be read."""

    owner_id: str | None = None
    signature_sha256: str | None = None
    challenge_sha256: str | None = None

    @classmethod
    def read(cls, body: bytes) -> DeliveredBody:
        """Read what can be read; a body that is no JSON object says nothing."""
        try:
            payload = json.loads(body)
        except ValueError:
            return cls()
        if not isinstance(payload, dict):
            return cls()
        owner, signature, challenge = (
            value if isinstance(value := payload.get(name), str) else None
            for name in ("ownerId", "signature", "challenge")
        )
        return cls(
            owner_id=owner,
            signature_sha256=None if signature is None else hashlib.sha256(signature.encode()).hexdigest(),
            challenge_sha256=None if challenge is None else _digest_of_decoded(challenge),
        )


def _digest_of_decoded(challenge: str) -> str | None:
    try:
        return hashlib.sha256(b64decode(challenge, validate=True)).hexdigest()
    except ValueError:
        return None
