"""The audit trail: what happened to a challenge. It holds no secret."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypedDict, Unpack

from signer.domain.record import ChallengeRecord


class EventName(StrEnum):
    """What can happen to a challenge. Alerts are written against these names: append; never rename."""

    CUSTOMER_CREATED = "customer.created"
    CUSTOMER_FOUND = "customer.found"
    CUSTOMER_LOOKUP_FAILED = "customer.lookup_failed"
    REFUSED = "challenge.refused"
    UPSTREAM_REFUSED = "card_api.challenge_refused"
    CONFLICTED = "challenge.conflicted"
    CLAIMED = "challenge.claimed"
    RELEASED = "challenge.released"
    SIGNED = "challenge.signed"
    TAKEN_OVER = "challenge.taken_over"
    DELIVERED = "challenge.delivered"
    DEFERRED = "challenge.deferred"
    SETTLED = "challenge.settled"
    LEASE_LOST = "challenge.lease_lost"


class AuditFields(TypedDict, total=False):
    """The fields of an event. None of them may hold a secret or a text of the message.

    Keys:
        challenge_id: if it is known.
        customer_id: of the request; ``None`` if it is not known.
        owner: CAIP-10.
        state: the record's, afterwards.
        code: the record's code, or the error's.
        key_uri: the key that signed, without secrets.
        attempt: the number of the POST.
        status: the card API's HTTP status.
        duration_ms: how long the step took.
        idempotency_key: of the delivery, or of the creation of a customer.
        upstream_status: the customer's status at the card API when it was read last.
        cause: why the key did not sign: one stable word.
        reason: the same in a sentence.
    """

    challenge_id: str
    customer_id: str | None
    owner: str
    state: str
    code: str | None
    key_uri: str
    attempt: int
    status: int | None
    duration_ms: float
    idempotency_key: str
    upstream_status: str | None
    cause: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened to one challenge or customer.

    Attributes:
        name: what happened.
        fields: what the log shows.
        is_repeated: whether it is about one more attempt that leaves the outcome open; not shown.
    """

    name: EventName
    fields: AuditFields
    is_repeated: bool = False

    @classmethod
    def about(
        cls, name: EventName, record: ChallengeRecord, *, is_repeated: bool = False, **details: Unpack[AuditFields]
    ) -> AuditEvent:
        """Create an event about the challenge of ``record``, which is as it is afterwards."""
        fields: AuditFields = {
            "challenge_id": record.id,
            "customer_id": record.customer_id,
            "owner": str(record.owner),
            "state": record.state,
            **details,
        }
        return cls(name, fields, is_repeated)


class AuditLog(Protocol):
    """Where the events of challenges are written."""

    def write(self, event: AuditEvent) -> None:
        """Write one event; never raises and never waits."""
        ...

    def check(self) -> None:
        """Return if what is signed next will be logged.

        Raises:
            Unavailable: ``audit_unavailable``.
        """
        ...
