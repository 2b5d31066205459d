"""What arrived: one entry for every ``POST …/challenge/sign``, and counters for every route.

Tests check with it what must hold whatever fails: one accepted delivery, one Idempotency-Key and one signature for each
challenge. Signatures and challenges are stored as SHA-256 digests.
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
    """How a response was sent."""

    SENT = "sent"
    SPOILT = "spoilt"
    CUT = "cut"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One delivery.

    Attributes:
        at: when it was handled, seconds since the epoch by the simulator's clock.
        customer_id: from the path.
        owner_id: from the body; ``None`` if it is missing, as in the next three.
        idempotency_key: from the field.
        signature_sha256: hex SHA-256 of the signature field's text.
        challenge_sha256: hex SHA-256 of the challenge's decoded bytes.
        status: the HTTP status; ``None`` if the request was dropped unread.
        code: the error code of a refusal.
        admitted: whether it passed the gates (token, request signature): only then the signature was looked at.
        verified: whether this delivery was verified and changed the customer.
        replayed: whether the response is the stored one of its Idempotency-Key.
        fate: how the response was sent.
    """

    at: float
    customer_id: str
    owner_id: str | None
    idempotency_key: str | None
    signature_sha256: str | None
    challenge_sha256: str | None
    status: int | None
    code: str | None
    admitted: bool
    verified: bool
    replayed: bool
    fate: Fate

    def to_json(self) -> dict[str, Any]:
        """Return the entry in the admin API's form."""
        return {
            "at": self.at,
            "customerId": self.customer_id,
            "ownerId": self.owner_id,
            "idempotencyKey": self.idempotency_key,
            "signatureSha256": self.signature_sha256,
            "challengeSha256": self.challenge_sha256,
            "status": self.status,
            "code": self.code,
            "admitted": self.admitted,
            "verified": self.verified,
            "replayed": self.replayed,
            "fate": self.fate.value,
        }


class Ledger:
    """The entries in the order of their responses, and the counters."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[LedgerEntry] = deque(maxlen=limit)
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def count(self, route: str, status: int | None, fate: Fate) -> None:
        """Count a response: under its status if it was sent or spoilt, else under its fate."""
        outcome = str(status) if status is not None and fate in (Fate.SENT, Fate.SPOILT) else fate.value
        self._outcomes[route][outcome] += 1

    def add(self, entry: LedgerEntry) -> None:
        """Add one delivery."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Remove all entries and counters."""
        self._entries.clear()
        self._outcomes.clear()

    def entries(self, customer_id: str | None = None) -> list[LedgerEntry]:
        """Return all deliveries, or those for one customer."""
        return [entry for entry in self._entries if customer_id in (None, entry.customer_id)]

    def outcomes(self, route: str) -> Counter[str]:
        """Return how often a route responded with each outcome."""
        return Counter(self._outcomes[route])

    def calls(self, route: str) -> int:
        """Return how often a route was called."""
        return self._outcomes[route].total()

    def to_json(self, customer_id: str | None = None) -> dict[str, Any]:
        """Return entries, counters and summary in the admin API's form."""
        entries = self.entries(customer_id)
        return {
            "entries": [entry.to_json() for entry in entries],
            "counters": {route: dict(outcomes) for route, outcomes in self._outcomes.items()},
            "summary": summarise(entries),
        }


def summarise(entries: Iterable[LedgerEntry]) -> dict[str, int]:
    """Return the numbers that a test of a whole run checks.

    ``verified`` deliveries, distinct ``customersVerified``, and the greatest number of distinct signatures and of
    distinct Idempotency-Keys for one challenge. The last two must be 1.
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
    """The fields of a delivery's body, as far as it can be parsed."""

    owner_id: str | None = None
    signature_sha256: str | None = None
    challenge_sha256: str | None = None

    @classmethod
    def read(cls, body: bytes) -> DeliveredBody:
        """Parse the body; every field is ``None`` if it is not a JSON object."""
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
