"""What the scripts answer, read as records, leases and instants.

An instant is a whole number of microseconds of Unix time: exactly what a ``datetime`` holds, so nothing is rounded.
What is read here was written by our own scripts and is not judged again; whoever sends a stored signature verifies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from signer.adapters.redis_store.scripts import FIELDS
from signer.application.ports import Lease, LeasedRecord
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, Submission

MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATE_FOR_NAME: Final = {state.value.encode(): state for state in ChallengeState}
_CODE_FOR_NAME: Final = {code.value.encode(): code for code in RecordCode}
"""A code that a newer release wrote is read as none."""
_STATE: Final = FIELDS.index("state")
_FENCE: Final = FIELDS.index("fence")
_LEASED_UNTIL: Final = FIELDS.index("leased_until")

Fields = Sequence[bytes | None]
"""The values of a record's hash in the order of ``FIELDS``; an absent one and an empty one both mean: none."""


def microseconds(instant: datetime) -> int:
    """Give ``instant`` as the scripts have it."""
    return (instant - _EPOCH) // MICROSECOND


def read_record(challenge_id: str, fields: Fields) -> ChallengeRecord:
    """Read one record. Its ``id`` is not among the fields, for it is the key."""
    (
        customer_id,
        owner,
        message_hash,
        state,
        code,
        forward,
        submission,
        signature,
        issued_at,
        expires_at,
        attempts,
        first_attempt_at,
        superseded_by,
        fence,
        leased_until,
        created_at,
        updated_at,
    ) = [value or b"" for value in fields]
    signature_text = signature.decode("ascii")
    return ChallengeRecord(
        id=challenge_id,
        customer_id=customer_id.decode("ascii"),
        owner=_owner(owner),
        message_hash=message_hash.decode("ascii"),
        state=_STATE_FOR_NAME[state],
        code=_CODE_FOR_NAME.get(code),
        forward=forward == b"1",
        submission=Submission(submission, signature_text) if submission else None,
        signature=signature_text or None,
        issued_at=_instant(issued_at),
        expires_at=_instant(expires_at),
        attempts=int(attempts),
        first_attempt_at=_instant(first_attempt_at) if first_attempt_at else None,
        superseded_by=superseded_by.decode("ascii") or None,
        fencing_token=int(fence),
        leased_until=_instant(leased_until) if leased_until else None,
        created_at=_instant(created_at),
        updated_at=_instant(updated_at),
    )


def _instant(value: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int(value))


def _owner(value: bytes) -> AccountId:
    """Read a CAIP-10 account that we wrote: its checksum was verified before."""
    _, reference, address = value.decode("ascii").split(":")
    return AccountId(ChainId(int(reference)), address)


class Answer:
    """What one move's script answered.

    Attributes:
        id: of the challenge.
        outcome: the script's word for what became of the call.
        now: the instant of it, by Redis's clock.
        fields: the record's, as they are now; empty where there was nothing to move.
        asked_at: when the call was begun, seconds of our monotonic clock.
    """

    __slots__ = ("asked_at", "fields", "id", "now", "outcome")

    def __init__(self, challenge_id: str, asked_at: float, outcome: bytes, now: int, fields: Fields = ()) -> None:
        self.id = challenge_id
        self.asked_at = asked_at
        self.outcome = outcome
        self.now = now
        self.fields = fields

    @property
    def is_nothing(self) -> bool:
        """Whether there was nothing to move."""
        return self.outcome == b"nothing"

    @property
    def state(self) -> ChallengeState:
        """Where the record is now."""
        return _STATE_FOR_NAME[self.fields[_STATE] or b""]

    def record(self) -> ChallengeRecord:
        """Read the record."""
        return read_record(self.id, self.fields)

    def lease(self) -> Lease:
        """Read what is left of the record's present lease; nothing where it has none."""
        left = max(int(self.fields[_LEASED_UNTIL] or 0) - self.now, 0)
        return Lease(self.id, int(self.fields[_FENCE] or 0), timedelta(microseconds=left), self.asked_at)

    def held(self) -> LeasedRecord:
        """Read the record together with its lease."""
        return LeasedRecord(self.record(), self.lease(), deliverable=self.outcome == b"deliverable")
