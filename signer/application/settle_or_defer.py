"""Decide what follows the result of a delivery: settle the record, or defer it.

* After a response that leaves the outcome open, the same request is repeated. From the third attempt on, if there was a
  response, and at the challenge's deadline, the customer's status is read: a card API may remember a failure under an
  Idempotency-Key.
* A 404 is final only if the customer is not found either, the card API issues a new token then, and the challenge is at
  least 30 seconds old: a card API may show a customer that was just created a little later.
* A 400 after which the same challenge is still current may be caused by this replica, for example by its clock. It is
  final only if every attempt of at least three minutes, by the store's clock, got one: other replicas have tried too.
* "Not proven" ends a record as expired only after a grace period after the challenge's deadline, by the store's clock:
  until then a POST may be processed. A record that must not be sent any more is rejected at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Unpack

from signer.application.backoff import Backoff
from signer.application.ports import (
    AuditEvent,
    AuditFields,
    AuditLog,
    CardApi,
    ChallengeStore,
    DeliveryResult,
    DeliveryVerdict,
    EventName,
    LeasedRecord,
)
from signer.application.upstream_status import CustomerReading, UpstreamStatus
from signer.domain.challenge import decode_challenge
from signer.domain.errors import LeaseLost, MalformedChallenge
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, challenge_id

_S = ChallengeState
_V = DeliveryVerdict

_FINAL_STATE_FOR_VERDICT: Final = {
    _V.ACCEPTED: (_S.VERIFIED, None),
    _V.ALREADY_SIGNED: (_S.ALREADY_SIGNED, RecordCode.ALREADY_SIGNED_UPSTREAM),
    _V.IDEMPOTENCY_KEY_REFUSED: (_S.REJECTED, RecordCode.IDEMPOTENCY_KEY_REFUSED),
}
_PROVEN_STATE_FOR_VERDICT: Final = {
    _V.CONFLICT_AMBIGUOUS: _S.ALREADY_SIGNED,
    _V.UNKNOWN: _S.VERIFIED,
    _V.REFUSED: _S.VERIFIED,  # by an earlier attempt
}
_RETRY_CODE_FOR_VERDICT: Final = {
    _V.CREDENTIALS_REFUSED: RecordCode.CREDENTIALS_REFUSED,
    _V.NOT_PROCESSED: RecordCode.CARD_API_BUSY,
    _V.CONFLICT_AMBIGUOUS: RecordCode.CARD_API_BUSY,
    _V.UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
    _V.CUSTOMER_UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
}
_CHECK_STATUS_AFTER_ATTEMPTS: Final = 3
_GIVE_UP_AFTER_DEADLINE: Final = timedelta(hours=1)  # after the deadline; then an open outcome is settled as unknown
REFUSAL_CONFIRMED_AFTER: Final = timedelta(minutes=3)
_CHALLENGE_IS_NEW_FOR: Final = timedelta(seconds=30)
_LEASE_MARGIN: Final = timedelta(seconds=2)
"""What must be left of the lease when a call to the card API ends, to settle the record."""
_ALWAYS_NEW: Final = frozenset({_V.ACCEPTED, RecordCode.HANDED_BACK})
_MAX_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingLimits:
    """Time limits of a delivery.

    Attributes:
        request_timeout: the longest that one call to the card API may take.
        backoff: the pauses between attempts.
        settle_grace_period: how long after the deadline the card API may still be processing a POST.
    """

    request_timeout: timedelta
    backoff: Backoff
    settle_grace_period: timedelta


class SettleOrDefer:
    """Decides what becomes of leased records, writes it to the store and logs it.

    It remembers which challenges it has deferred: the next attempts, as long as they change nothing, are logged as
    repeated. So an outage writes few lines about a challenge, however often its delivery is tried.
    """

    def __init__(
        self,
        *,
        store: ChallengeStore,
        card_api: CardApi,
        audit: AuditLog,
        limits: ForwardingLimits,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._audit = audit
        self._limits = limits
        self._jitter = jitter
        self._monotonic = monotonic
        self._upstream = UpstreamStatus(card_api=card_api, time_left=self.time_left)
        self._deferred: set[str] = set()

    async def after_delivery(self, leased: LeasedRecord, result: DeliveryResult) -> ChallengeRecord:
        """Settle or defer a record whose delivery had this result."""
        customer = None
        if _must_read_customer(leased.record, result):
            customer = await self._upstream.customer(leased)
            leased = customer.noted_in(leased)
        final = _final_state(leased.record, result.verdict, customer)
        if final is not None:
            return await self.settle(leased, *final)
        if result.verdict is _V.REFUSED:
            return await self._after_refusal(leased, result)
        code = _RETRY_CODE_FOR_VERDICT[result.verdict]
        if result.verdict is _V.CUSTOMER_UNKNOWN and customer is not None and customer.has_no_customer:
            code = RecordCode.CUSTOMER_UNKNOWN_UPSTREAM
        return await self.defer(leased, code, result.retry_after)

    async def without_sending(
        self,
        leased: LeasedRecord,
        state: ChallengeState = ChallengeState.EXPIRED,
        code: RecordCode = RecordCode.NOT_DELIVERED,
    ) -> ChallengeRecord:
        """Settle a record that must not be sent: as verified if the card API has the proof, else as ``state``."""
        record, now = leased.record, leased.record.updated_at  # by the store's clock, at the begin of this lease
        customer = await self._upstream.customer(leased)
        leased, proven = customer.noted_in(leased), customer.is_proven
        if proven:
            return await self.settle(leased, ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
        may_be_processing = now < record.expires_at + self._limits.settle_grace_period
        if proven is False and not (state is ChallengeState.EXPIRED and may_be_processing):
            return await self.settle(leased, state, code)
        if now >= record.expires_at + _GIVE_UP_AFTER_DEADLINE:
            return await self.settle(leased, ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
        return await self.defer(leased, RecordCode.OUTCOME_UNKNOWN)

    async def settle(
        self,
        leased: LeasedRecord,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
    ) -> ChallengeRecord:
        """Write a final state."""
        try:
            record = await self._store.settle(
                leased.lease, state, code, superseded_by, upstream_status=leased.record.upstream_status
            )
        except LeaseLost:
            self.log(EventName.LEASE_LOST, leased.record)
            raise
        self.log(EventName.SETTLED, record, code=record.code, upstream_status=record.upstream_status)
        self._deferred.discard(record.id)
        return record

    async def defer(
        self,
        leased: LeasedRecord,
        code: RecordCode,
        retry_after: timedelta | None = None,
        refused_since: datetime | None = None,
    ) -> ChallengeRecord:
        """Pause until the next attempt, at least for ``retry_after``."""
        backoff = self._limits.backoff.pause_after(leased.record.attempts, self._jitter)
        return await self._pause(leased, code, max(backoff, retry_after or timedelta(0)), refused_since)

    async def hand_back(self, leased: LeasedRecord) -> None:
        """End the lease at once, so that another replica can continue."""
        await self._pause(leased, RecordCode.HANDED_BACK, timedelta(0))

    def time_left(self, leased: LeasedRecord) -> timedelta:
        """Return how long a call to the card API may take under this lease; may be negative."""
        return min(self._limits.request_timeout, leased.lease.remaining_at(self._monotonic()) - _LEASE_MARGIN)

    def log(self, name: EventName, record: ChallengeRecord, **details: Unpack[AuditFields]) -> None:
        """Write an event about a delivery."""
        details.setdefault("attempt", record.attempts)
        is_repeated = record.id in self._deferred and details.get("code") not in _ALWAYS_NEW
        self._audit.write(AuditEvent.about(name, record, is_repeated=is_repeated, **details))

    async def _pause(
        self, leased: LeasedRecord, code: RecordCode, pause: timedelta, refused_since: datetime | None = None
    ) -> ChallengeRecord:
        status = leased.record.upstream_status
        try:
            record = await self._store.defer(
                leased.lease, code, pause, upstream_status=status, refused_since=refused_since
            )
        except LeaseLost:
            self.log(EventName.LEASE_LOST, leased.record)
            raise
        duration_ms = pause.total_seconds() * 1000
        self.log(EventName.DEFERRED, record, code=code, duration_ms=duration_ms, upstream_status=status)
        if len(self._deferred) >= _MAX_REMEMBERED:  # other replicas have settled some of them
            self._deferred.clear()
        self._deferred.add(record.id)
        return record

    async def _after_refusal(self, leased: LeasedRecord, result: DeliveryResult) -> ChallengeRecord:
        """Decide after a 400: the challenge was replaced, or every attempt of some minutes was refused; else defer."""
        record = leased.record
        attempt_began = record.updated_at
        refused_since = record.refused_since or attempt_began
        current = await self._upstream.current_challenge(leased)
        if current is None:
            return await self.defer(leased, RecordCode.CARD_API_UNAVAILABLE, refused_since=refused_since)
        if record.submission is None or current != record.submission.parts()[0]:
            superseded_by = _id_of(current, record)
            return await self.settle(leased, ChallengeState.SUPERSEDED, RecordCode.REPLACED_UPSTREAM, superseded_by)
        if attempt_began - refused_since >= REFUSAL_CONFIRMED_AFTER:
            return await self.settle(leased, ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)
        return await self.defer(leased, RecordCode.REFUSAL_UNCONFIRMED, result.retry_after, refused_since)


def _must_read_customer(record: ChallengeRecord, result: DeliveryResult) -> bool:
    match result.verdict:
        case _V.CONFLICT_AMBIGUOUS | _V.CUSTOMER_UNKNOWN:
            return True
        case _V.REFUSED:
            return record.attempts > 1
        case _V.UNKNOWN:
            return result.status is not None and record.attempts >= _CHECK_STATUS_AFTER_ATTEMPTS
    return False


def _final_state(
    record: ChallengeRecord, verdict: DeliveryVerdict, customer: CustomerReading | None
) -> tuple[ChallengeState, RecordCode | None] | None:
    """Return the final state and its code; ``None`` if the outcome is open."""
    is_new = record.updated_at - record.issued_at < _CHALLENGE_IS_NEW_FOR
    if customer is not None and customer.has_no_customer and verdict is _V.CUSTOMER_UNKNOWN and not is_new:
        return ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM
    if customer is not None and customer.is_proven and verdict in _PROVEN_STATE_FOR_VERDICT:
        return _PROVEN_STATE_FOR_VERDICT[verdict], RecordCode.CONFIRMED_BY_CUSTOMER_STATUS
    return _FINAL_STATE_FOR_VERDICT.get(verdict)


def _id_of(encoded: str, record: ChallengeRecord) -> str | None:
    """Return the id of the challenge that replaced ours; ``None`` if it cannot be decoded."""
    try:
        challenge = decode_challenge(encoded)
    except MalformedChallenge:
        return None
    return challenge_id(record.owner, challenge.domain, challenge.nonce)
