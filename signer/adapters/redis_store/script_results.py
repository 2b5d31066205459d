"""The results of the scripts as records, leases and instants.

An instant is a whole number of microseconds of Unix time, exactly like a ``datetime``, so nothing is rounded. What is
parsed here was written by the scripts and is not validated again; a stored signature is verified before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

from signer.adapters.redis_store.scripts import FIELDS
from signer.application.ports import Lease, LeasedRecord
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord, Submission

MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATE_FOR_NAME: Final = {state.value.encode(): state for state in ChallengeState}
_CODE_FOR_NAME: Final = {code.value.encode(): code for code in RecordCode}
"""A code that a newer release wrote is read as none."""

Fields = Sequence[bytes | None]
"""The values of a record's hash in the order of ``FIELDS``; an absent and an empty one both mean: none."""


def microseconds(instant: datetime) -> int:
    """Return ``instant`` as the scripts store it."""
    return (instant - _EPOCH) // MICROSECOND


def parse_record(challenge_id: str, fields: Fields) -> ChallengeRecord:
    """Parse one record. Its id is not among the fields, because it is part of the key."""
    value = {name: field or b"" for name, field in zip(FIELDS, fields, strict=True)}
    signature = _text(value["signature"])
    submission = Submission(value["submission"], signature or "") if value["submission"] else None
    return ChallengeRecord(
        id=challenge_id,
        customer_id=value["customer_id"].decode("ascii"),
        owner=_owner(value["owner"]),
        message_hash=value["message_hash"].decode("ascii"),
        state=_STATE_FOR_NAME[value["state"]],
        code=_CODE_FOR_NAME.get(value["code"]),
        forward=value["forward"] == b"1",
        submission=submission,
        signature=signature,
        issued_at=_instant(value["issued_at"]),
        expires_at=_instant(value["expires_at"]),
        attempts=int(value["attempts"]),
        first_attempt_at=_instant(value["first_attempt_at"]) if value["first_attempt_at"] else None,
        superseded_by=_text(value["superseded_by"]),
        fencing_token=int(value["fence"]),
        leased_until=_instant(value["leased_until"]) if value["leased_until"] else None,
        created_at=_instant(value["created_at"]),
        updated_at=_instant(value["updated_at"]),
        upstream_status=CustomerStatus(value["upstream_status"].decode()) if value["upstream_status"] else None,
        refused_since=_instant(value["refused_since"]) if value["refused_since"] else None,
    )


def _text(value: bytes) -> str | None:
    return value.decode("ascii") or None


def _instant(value: bytes | int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(value))


def _owner(value: bytes) -> AccountId:
    """Parse a CAIP-10 account whose checksum was verified before it was stored."""
    _, reference, address = value.decode("ascii").split(":")
    return AccountId(ChainId(int(reference)), address)


@dataclass
class ScriptResult:
    """What the script of one move returned.

    Attributes:
        called_at: when the call began, in seconds of this process's monotonic clock.
        now: the instant of the move, by Redis's clock.
        fields: the record's, after the move; empty if the move did not apply.
    """

    id: str
    called_at: float
    outcome: bytes
    now: int
    fields: Fields = ()

    @property
    def is_applicable(self) -> bool:
        """Whether the move applied to the record."""
        return self.outcome != b"not_applicable"

    @cached_property
    def record(self) -> ChallengeRecord:
        """The record."""
        return parse_record(self.id, self.fields)

    @property
    def lease(self) -> Lease:
        """The record's current lease; its remaining time is 0 if the record has none."""
        now = _instant(self.now)
        remaining = max((self.record.leased_until or now) - now, timedelta(0))
        return Lease(self.id, self.record.fencing_token, remaining, self.called_at)

    @property
    def leased_record(self) -> LeasedRecord:
        """The record together with its lease."""
        return LeasedRecord(self.record, self.lease, deliverable=self.outcome == b"deliverable")
