"""The port ``ChallengeStore`` in memory. The contract suite tests it like the real stores.

Time is ``now`` plus what ``Shelf.advance`` added, so a test ends leases and deadlines without waiting. Several stores
over one ``Shelf`` are several replicas; a store whose ``new_token`` returns the same token again repeats its calls.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import IDEMPOTENCY_KEY_MEMORY, ForbiddenMove, longest_wait
from signer.application.ports import Claim, ClaimOutcome, ClaimResult, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, LeaseLost, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import MOVES, ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord, Submission

_S = ChallengeState
_CALLS: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class _Row:
    record: ChallengeRecord
    token: str
    attention: datetime | None
    dies_at: datetime


@dataclass(slots=True)
class Shelf:
    """The records that the stores of several replicas share.

    Attributes:
        rows: by id.
        newest: the newest id by customer and owner.
        is_down: whether every call raises ``Unavailable``.
    """

    rows: dict[str, _Row] = field(default_factory=dict)
    newest: dict[tuple[str, AccountId], str] = field(default_factory=dict)
    is_down: bool = False
    _ahead: timedelta = timedelta(0)

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._ahead += by

    @property
    def ahead(self) -> timedelta:
        """How much time ``advance`` has added."""
        return self._ahead


class FakeChallengeStore:
    """See ``ChallengeStore`` for what each method does, and ``RedisChallengeStore`` for the rules."""

    def __init__(
        self,
        shelf: Shelf | None = None,
        settings: RedisSettings | None = None,
        *,
        max_age: timedelta = timedelta(hours=1),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_token: Callable[[], str] = lambda: str(next(_CALLS)),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shelf = shelf or Shelf()
        self._settings = settings or RedisSettings()
        self._longest_wait = longest_wait(self._settings, max_age)
        self._clock = now
        self._new_token = new_token
        self._monotonic = monotonic

    async def claim(self, claim: Claim) -> ClaimResult:
        """See the port."""
        now, token, row = self._begin(claim.id)
        leased_until = now + self._settings.lease
        if row is None:
            if now >= claim.expires_at:
                raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "The challenge has expired by the store's clock.")
            record = _first_record(claim, now, leased_until)
            self.shelf.newest[claim.customer_id, claim.owner] = claim.id
            attention = max(claim.expires_at, leased_until)
            dies_at = max(now + self._settings.nonce_retention, claim.expires_at)
            self.shelf.rows[claim.id] = _Row(record, token, attention, dies_at)
            return self._granted(record, now)
        record = row.record
        if record.message_hash != claim.message_hash:
            return ClaimResult(ClaimOutcome.NONCE_REUSED, record)
        if record.customer_id != claim.customer_id:
            return ClaimResult(ClaimOutcome.OTHER_CUSTOMER, record)
        if claim.forward and not record.forward and not record.state.is_final:
            record = record._replace(forward=True)
            due = now if record.state is _S.SIGNED else row.attention
            row = self.shelf.rows[claim.id] = replace(row, record=record, attention=due)
        if _S.CLAIMED not in MOVES[record.state]:
            return ClaimResult(ClaimOutcome.PAST_SIGNING, record)
        if record.state is _S.CLAIMED and _is_leased(record, now):
            return (
                self._granted(record, now) if row.token == token else ClaimResult(ClaimOutcome.LEASED_ELSEWHERE, record)
            )
        attention = max(record.expires_at, leased_until)
        fencing_token = record.fencing_token + 1
        record = self._move(
            row, token, now, _S.CLAIMED, attention, fencing_token=fencing_token, leased_until=leased_until, code=None
        )
        return self._granted(record, now)

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """See the port."""
        now, token, row = self._begin(lease.id)
        if row is None or row.token != token:
            row = _leased_row(row, lease, _S.CLAIMED, _S.SIGNED)
            signed = {"submission": submission, "signature": submission.signature}
            if row.record.forward and self._is_deliverable(row.record, now):
                until = now + self._settings.lease
                begun = {"leased_until": until, "attempts": 1, "first_attempt_at": now}
                self._move(row, token, now, _S.FORWARDING, until, **signed, **begun)
            else:
                self._move(row, token, now, _S.SIGNED, row.record.expires_at, **signed, leased_until=None)
        return self._leased(lease.id, now)

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """See the port."""
        now, token, row = self._begin(lease.id)
        if row is not None and row.token == token:
            return row.record
        row = _leased_row(row, lease, _S.CLAIMED, _S.RELEASED)
        return self._move(row, token, now, _S.RELEASED, row.record.expires_at, code=code, leased_until=None)

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """See the port."""
        now, token, row = self._begin(challenge_id)
        if row is None or _S.FORWARDING not in MOVES[row.record.state] or not row.record.forward:
            return None
        record = row.record
        if record.state is _S.FORWARDING and _is_leased(record, now):
            return self._leased(challenge_id, now) if row.token == token else None
        if record.state is _S.SIGNED and record.attempts and _is_pending(row.attention, record, now):
            return None
        deliverable = self._is_deliverable(record, now)
        if not deliverable and not record.attempts:
            return None
        until = now + self._settings.lease
        self._move(
            row,
            token,
            now,
            _S.FORWARDING,
            until,
            fencing_token=record.fencing_token + 1,
            leased_until=until,
            attempts=record.attempts + deliverable,
            first_attempt_at=record.first_attempt_at or now,
            code=None,
        )
        return self._leased(challenge_id, now)

    async def defer(
        self,
        lease: Lease,
        code: RecordCode,
        retry_in: timedelta,
        *,
        upstream_status: CustomerStatus | None = None,
        refused_since: datetime | None = None,
    ) -> ChallengeRecord:
        """See the port."""
        now, token, row = self._begin(lease.id)
        if row is not None and row.token == token:
            return row.record
        row = _leased_row(row, lease, _S.FORWARDING, _S.SIGNED)
        due = now + max(retry_in, timedelta(0))
        deadline = row.record.expires_at
        due = min(due, deadline) if now < deadline else due
        return self._move(
            row,
            token,
            now,
            _S.SIGNED,
            due,
            code=code,
            leased_until=None,
            upstream_status=upstream_status,
            refused_since=refused_since,
        )

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
        *,
        upstream_status: CustomerStatus | None = None,
    ) -> ChallengeRecord:
        """See the port."""
        now, token, row = self._begin(lease.id)
        if row is not None and row.token == token:
            return row.record
        row = _leased_row(row, lease, _S.FORWARDING, state)
        if not state.is_final:
            raise ForbiddenMove
        end = {
            "upstream_status": upstream_status,
            "code": code,
            "superseded_by": superseded_by,
            "submission": None,
            "leased_until": None,
        }
        return self._move(row, token, now, state, None, **end)

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """See the port."""
        now, token, row = self._begin(challenge_id)
        if row is None:
            return None
        record = row.record
        if record.state is _S.EXPIRED and row.token == token:
            return record
        if _S.EXPIRED not in MOVES[record.state] or now < record.expires_at or record.attempts:
            return None
        if record.state is _S.CLAIMED and _is_leased(record, now):
            return None
        code = RecordCode.NOT_SIGNED
        if record.state is _S.SIGNED:
            code = RecordCode.NOT_DELIVERED if record.forward else RecordCode.NOT_FORWARDED
        return self._move(row, token, now, _S.EXPIRED, None, code=code, submission=None, leased_until=None)

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """See the port."""
        _, _, row = self._begin(challenge_id)
        return None if row is None else row.record

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """See the port."""
        return await self.get(self.shelf.newest.get((customer_id, owner), ""))

    async def due(self, limit: int) -> Sequence[str]:
        """See the port."""
        now, _, _ = self._begin("")
        kept = [(row.attention, name) for name, row in self.shelf.rows.items() if row.attention and row.dies_at > now]
        latest = now + self._longest_wait
        due = [name for attention, name in sorted(kept) if attention <= now]
        return [*due, *(name for attention, name in sorted(kept) if attention >= latest)][:limit]

    async def ping(self) -> None:
        """See the port."""
        self._begin("")

    def _begin(self, challenge_id: str) -> tuple[datetime, str, _Row | None]:
        if self.shelf.is_down:
            raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "The store cannot be reached.")
        now = self._clock() + self.shelf.ahead
        row = self.shelf.rows.get(challenge_id)
        if row is not None and row.dies_at <= now:
            del self.shelf.rows[challenge_id]
            self.shelf.newest = {whose: name for whose, name in self.shelf.newest.items() if name != challenge_id}
            row = None
        return now, self._new_token(), row

    def _move(
        self,
        row: _Row,
        token: str,
        now: datetime,
        state: ChallengeState,
        attention: datetime | None,
        **changes: Any,  # noqa: ANN401 - the record's own fields
    ) -> ChallengeRecord:
        record = row.record._replace(state=state, updated_at=now, **changes)
        self.shelf.rows[record.id] = replace(row, record=record, token=token, attention=attention)
        return record

    def _granted(self, record: ChallengeRecord, now: datetime) -> ClaimResult:
        return ClaimResult(ClaimOutcome.GRANTED, record, self._lease(record, now))

    def _leased(self, challenge_id: str, now: datetime) -> LeasedRecord:
        record = self.shelf.rows[challenge_id].record
        return LeasedRecord(record, self._lease(record, now), self._is_deliverable(record, now))

    def _lease(self, record: ChallengeRecord, now: datetime) -> Lease:
        left = timedelta(0) if record.leased_until is None else max(record.leased_until - now, timedelta(0))
        return Lease(record.id, record.fencing_token, left, self._monotonic())

    def _is_deliverable(self, record: ChallengeRecord, now: datetime) -> bool:
        first = record.first_attempt_at
        return now < record.expires_at and (first is None or now < first + IDEMPOTENCY_KEY_MEMORY)


def _first_record(claim: Claim, now: datetime, leased_until: datetime) -> ChallengeRecord:
    return ChallengeRecord(
        id=claim.id,
        customer_id=claim.customer_id,
        owner=claim.owner,
        message_hash=claim.message_hash,
        state=_S.CLAIMED,
        code=None,
        forward=claim.forward,
        submission=None,
        signature=None,
        issued_at=claim.issued_at,
        expires_at=claim.expires_at,
        attempts=0,
        first_attempt_at=None,
        superseded_by=None,
        fencing_token=1,
        leased_until=leased_until,
        created_at=now,
        updated_at=now,
    )


def _leased_row(row: _Row | None, lease: Lease, source: ChallengeState, target: ChallengeState) -> _Row:
    """Return the row if the lease's holder may move it."""
    if (
        row is None
        or row.record.fencing_token != lease.fencing_token
        or row.record.state not in MOVES[row.record.state]
    ):
        raise LeaseLost
    if row.record.state is not source or target not in MOVES[source]:
        raise ForbiddenMove
    return row


def _is_leased(record: ChallengeRecord, now: datetime) -> bool:
    return _is_pending(record.leased_until, record, now)


def _is_pending(ends: datetime | None, record: ChallengeRecord, now: datetime) -> bool:
    """Return whether a lease or pause has not ended; none lasts longer than twice its length."""
    return ends is not None and ends > now and ends - now <= 2 * (ends - record.updated_at)
