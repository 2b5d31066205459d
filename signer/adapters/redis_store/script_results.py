"""The results of the scripts as records, leases and instants.

An instant is a whole number of microseconds of Unix time, exactly like a ``datetime``, so nothing is rounded. Stored
data may be damaged, so each field must have the form in which the scripts write it. A stored signature is verified
before it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from signer.adapters.redis_store.scripts import StoredRecord
from signer.application.ports import Lease, LeasedRecord
from signer.domain.errors import ErrorCode, MalformedRequest, RecordDamaged, Unavailable
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord, Submission, parse_customer_id

MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATE_FOR_NAME: Final = {state.value.encode(): state for state in ChallengeState}
_CODE_FOR_NAME: Final = {code.value.encode(): code for code in RecordCode}
"""A code that a newer release wrote is read as none."""
_FORWARD: Final = {b"0": False, b"1": True}
_LONGEST_NUMBER: Final = 16
_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_OWNER: Final = re.compile(r"eip155:([0-9]{1,32}):(0x[0-9a-fA-F]{40})")
_STATE_OF_A_NEWER_RELEASE: Final = re.compile(rb"[a-z_]+")

Fields = Sequence[bytes | None]
"""The values of a record's hash in the order of ``StoredRecord``; an absent and an empty one both mean: none."""


def microseconds(instant: datetime) -> int:
    """Return ``instant`` as the scripts store it."""
    return (instant - _EPOCH) // MICROSECOND


def parse_record(challenge_id: str, fields: Fields) -> ChallengeRecord:
    """Parse one record. Its id is not among the fields, because it is part of the key.

    Raises:
        RecordDamaged: a field is missing or malformed.
        Unavailable: a newer release wrote the record's state.
    """
    try:
        return _parse(challenge_id, StoredRecord(*[field or b"" for field in fields]))
    except (ValueError, KeyError, TypeError, MalformedRequest):
        raise RecordDamaged from None


def _parse(challenge_id: str, stored: StoredRecord) -> ChallengeRecord:
    state, code, signature = _state(stored.state), _CODE_FOR_NAME.get(stored.code), _text(stored.signature)
    submission = Submission(stored.submission, signature or "") if stored.submission else None
    is_shown = code is not RecordCode.SIGNATURE_DAMAGED and (submission is None or submission.has_its_signature)
    return ChallengeRecord(
        id=challenge_id,
        customer_id=parse_customer_id(stored.customer_id.decode("ascii")),
        owner=_owner(stored.owner),
        message_hash=_matching(_HASH, stored.message_hash).decode("ascii"),
        state=state,
        code=code,
        forward=_FORWARD[stored.forward],
        submission=submission,
        signature=signature if is_shown else None,
        issued_at=_instant(stored.issued_at),
        expires_at=_instant(stored.expires_at),
        attempts=_number(stored.attempts),
        first_attempt_at=_instant(stored.first_attempt_at) if stored.first_attempt_at else None,
        superseded_by=_text(stored.superseded_by),
        fencing_token=_number(stored.fence),
        leased_until=_instant(stored.leased_until) if stored.leased_until else None,
        created_at=_instant(stored.created_at),
        updated_at=_instant(stored.updated_at),
        upstream_status=CustomerStatus(stored.upstream_status.decode()) if stored.upstream_status else None,
        refused_since=_instant(stored.refused_since) if stored.refused_since else None,
    )


def _text(value: bytes) -> str | None:
    return value.decode("ascii") or None


def _matching(pattern: re.Pattern[bytes], value: bytes) -> bytes:
    if pattern.fullmatch(value) is None:
        raise ValueError
    return value


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise ValueError
    return int(value)


@lru_cache(maxsize=4096)  # a challenge's record is read several times, with mostly the same instants
def _instant(value: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=_number(value))


def _state(name: bytes) -> ChallengeState:
    state = _STATE_FOR_NAME.get(name)
    if state is None:
        _matching(_STATE_OF_A_NEWER_RELEASE, name)
        raise Unavailable(
            ErrorCode.STORE_UNAVAILABLE,
            "A newer release of this service wrote this record's state. Retry: a replica of that release can read it.",
        )
    return state


@lru_cache(maxsize=4096)
def _owner(value: bytes) -> AccountId:
    """Parse a CAIP-10 account whose checksum was verified before it was stored."""
    match = _OWNER.fullmatch(value.decode("ascii"))
    if match is None:
        raise ValueError
    return AccountId(ChainId(int(match[1])), match[2])


@dataclass
class ScriptResult:
    """What the script of one move returned.

    Attributes:
        called_at: when the call began, in seconds of this process's monotonic clock.
        now: the instant of the move, by Redis's clock.
        fields: the record's, after the move; empty if the move did not apply.
        record: the same, parsed.

    Raises:
        RecordDamaged, Unavailable: as ``parse_record`` does.
    """

    id: str
    called_at: float
    outcome: bytes
    now: int
    fields: Fields = ()
    record: ChallengeRecord = field(init=False)

    def __post_init__(self) -> None:
        if self.outcome == b"damaged":
            raise RecordDamaged
        if self.fields:
            self.record = parse_record(self.id, self.fields)

    @property
    def is_applicable(self) -> bool:
        """Whether the move applied to the record, which is then returned."""
        return bool(self.fields)

    @property
    def lease(self) -> Lease:
        """The record's current lease; its remaining time is 0 if the record has none."""
        now = _EPOCH + self.now * MICROSECOND
        remaining = max((self.record.leased_until or now) - now, timedelta(0))
        return Lease(self.id, self.record.fencing_token, remaining, self.called_at)

    @property
    def leased_record(self) -> LeasedRecord:
        """The record together with its lease."""
        return LeasedRecord(self.record, self.lease, deliverable=self.outcome == b"deliverable")
