"""Deliver a recorded signature and settle its record. Any replica can repeat every step after any failure.

* The stored submission is delivered unchanged, under the one Idempotency-Key computed from it.
* Nothing is sent without a lease that outlives the request, nor after the challenge's deadline. The time left of a
  lease is measured by our monotonic clock from before the store was called, so a stall in between counts.
* A replica that is cancelled while it waits for the card API hands the challenge back; another one continues at once.
* A replica that did not make the signature checks it first (``stored_signature_check``).
* After a response that leaves the outcome open, the same request is repeated. From the third attempt on, and at the
  challenge's deadline, the customer's status is read first: a card API may remember a failure under an Idempotency-Key.
* A 404 is final only if the customer is not found either and the card API issues a new token then.
* "Not proven" is final only after a grace period behind the challenge's deadline: until then a POST may be processed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Unpack

from signer.application.backoff import Backoff
from signer.application.ports import (
    AuditDetails,
    AuditEvent,
    AuditLog,
    CardApi,
    ChallengeStore,
    Clock,
    DeliveryResult,
    DeliveryVerdict,
    EventName,
    LeasedRecord,
)
from signer.application.stored_signature_check import StoredSignatureCheck
from signer.application.upstream_status import UpstreamStatus
from signer.domain.challenge import decode_challenge
from signer.domain.errors import LeaseLost, MalformedChallenge, SignerError
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, challenge_id

_FINAL_STATE_FOR_VERDICT: Final = {
    DeliveryVerdict.ACCEPTED: (ChallengeState.VERIFIED, None),
    DeliveryVerdict.ALREADY_SIGNED: (ChallengeState.ALREADY_SIGNED, RecordCode.ALREADY_SIGNED_UPSTREAM),
    DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED: (ChallengeState.REJECTED, RecordCode.IDEMPOTENCY_KEY_REFUSED),
}
_RETRY_CODE_FOR_VERDICT: Final = {
    DeliveryVerdict.CREDENTIALS_REFUSED: RecordCode.CREDENTIALS_REFUSED,
    DeliveryVerdict.NOT_PROCESSED: RecordCode.CARD_API_BUSY,
    DeliveryVerdict.CONFLICT_AMBIGUOUS: RecordCode.CARD_API_BUSY,
    DeliveryVerdict.UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
    DeliveryVerdict.CUSTOMER_UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
}
_CHECK_STATUS_AFTER_ATTEMPTS: Final = 3
_CHECK_STATUS_FOR: Final = timedelta(hours=1)  # after the deadline; then an open outcome is settled as unknown
_LEASE_MARGIN: Final = timedelta(seconds=2)
"""What must be left of the lease when a call to the card API ends, to settle the record."""
_LONG_SUSPENSION: Final = timedelta(seconds=1)
"""If calls stay suspended for at least this long, the caller gets its response now, and recovery delivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingLimits:
    """Time limits of a delivery.

    Attributes:
        request_timeout: the longest that one call to the card API may take.
        backoff: the pauses between attempts.
        settle_grace_period: how long after the deadline the card API may still be processing a POST.
        poll_interval: the pause between two reads of a record that another replica delivers.
    """

    request_timeout: timedelta
    backoff: Backoff
    settle_grace_period: timedelta
    poll_interval: timedelta = timedelta(milliseconds=100)


class ForwardSignature:
    """Delivers signatures, one attempt at a time, and settles their records."""

    def __init__(
        self,
        *,
        store: ChallengeStore,
        card_api: CardApi,
        check: StoredSignatureCheck,
        clock: Clock,
        audit: AuditLog,
        limits: ForwardingLimits,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._card_api = card_api
        self._check = check
        self._clock = clock
        self._audit = audit
        self._limits = limits
        self._jitter = jitter
        self._monotonic = monotonic
        self._upstream = UpstreamStatus(card_api=card_api, time_left=self._time_left)

    async def deliver(self, leased: LeasedRecord, deadline: float) -> ChallengeRecord:
        """Deliver what this replica has just signed and recorded, then follow it; see ``follow``."""
        record = leased.record
        if record.state is ChallengeState.FORWARDING:
            with suppress(LeaseLost):
                record = await self.attempt(leased)
        return await self.follow(record, deadline)

    async def follow(self, record: ChallengeRecord, deadline: float) -> ChallengeRecord:
        """Retry and watch a delivery until it is done, ``deadline`` passes or calls are suspended.

        Args:
            record: as it was read last.
            deadline: of the work for the caller, in seconds of ``time.monotonic``; recovery continues after it.
        """
        while not record.is_done and time.monotonic() < deadline and not self._is_suspended():
            try:
                moved = await self.take_over(record.id)
            except LeaseLost:
                moved = None
            if moved is not None and moved.is_done:
                return moved
            await asyncio.sleep(self._limits.poll_interval.total_seconds())
            record = await self._store.get(record.id) or record
        return record

    async def take_over(self, challenge_id: str) -> ChallengeRecord | None:
        """Continue with a challenge that another replica, or an earlier attempt, left unsettled.

        Returns:
            The record, settled or deferred; ``None`` if there was nothing to do.

        Raises:
            Unavailable: as ``attempt`` does.
        """
        leased = await self._store.begin_forwarding(challenge_id)
        if leased is None:
            expired = await self._store.expire(challenge_id)
            if expired is not None:
                self._log(EventName.SETTLED, expired, code=expired.code)
            return expired
        self._log(EventName.TAKEN_OVER, leased.record)
        rejection = self._check.rejection_reason(leased.record)
        if rejection is None:
            return await self.attempt(leased)
        if rejection is RecordCode.NOT_YET_VALID:  # a clock is wrong, and it may be ours
            return await self._defer(leased, rejection)
        earlier_attempts = leased.record.attempts - (1 if leased.deliverable else 0)  # the store has counted this one
        if earlier_attempts:  # it may have been accepted
            return await self._settle_without_sending(leased, ChallengeState.REJECTED, rejection)
        return await self._settle(leased, ChallengeState.REJECTED, rejection)

    async def attempt(self, leased: LeasedRecord) -> ChallengeRecord:
        """Deliver once; return the record, settled or deferred.

        Raises:
            Unavailable: the store failed, or the lease was lost; the delivery itself may have happened.
        """
        try:
            return await self._attempt(leased)
        except asyncio.CancelledError:
            with suppress(SignerError):
                handed_back = await self._store.defer(leased.lease, RecordCode.HANDED_BACK, timedelta(0))
                self._log(EventName.DEFERRED, handed_back, code=RecordCode.HANDED_BACK, duration_ms=0.0)
            raise

    async def _attempt(self, leased: LeasedRecord) -> ChallengeRecord:
        record = leased.record
        if record.submission is None or not leased.deliverable:
            return await self._settle_without_sending(leased)
        timeout = min(self._time_left(leased), record.expires_at - self._clock.now())
        if timeout <= timedelta(0):  # only the store's clock decides that it has expired; an earlier POST may be open
            return await self._defer(leased, RecordCode.OUTCOME_UNKNOWN)
        started = time.perf_counter()
        result = await self._card_api.submit(
            record.customer_id,
            record.submission,
            idempotency_key=record.submission.idempotency_key,
            timeout=timeout,
        )
        self._log(
            EventName.DELIVERED,
            record,
            code=result.verdict.name.lower(),
            status=result.status,
            duration_ms=(time.perf_counter() - started) * 1000,
            idempotency_key=record.submission.idempotency_key,
        )
        return await self._settle_or_defer(leased, result)

    async def _settle_or_defer(self, leased: LeasedRecord, result: DeliveryResult) -> ChallengeRecord:
        if result.verdict is DeliveryVerdict.REFUSED:
            return await self._after_refusal(leased)
        final = await self._final_state(leased, result)
        if final is not None:
            return await self._settle(leased, *final)
        return await self._defer(leased, _RETRY_CODE_FOR_VERDICT[result.verdict], result.retry_after)

    async def _final_state(
        self, leased: LeasedRecord, result: DeliveryResult
    ) -> tuple[ChallengeState, RecordCode | None] | None:
        """Return the final state and its code; ``None`` if the outcome is open."""
        is_responding = result.status is not None and leased.record.attempts >= _CHECK_STATUS_AFTER_ATTEMPTS
        match result.verdict:
            case DeliveryVerdict.CONFLICT_AMBIGUOUS if await self._upstream.is_proven(leased):
                return ChallengeState.ALREADY_SIGNED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS
            case DeliveryVerdict.CUSTOMER_UNKNOWN if await self._upstream.is_customer_unknown(leased):
                return ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM
            case DeliveryVerdict.UNKNOWN if is_responding and await self._upstream.is_proven(leased):
                return ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS
        return _FINAL_STATE_FOR_VERDICT.get(result.verdict)

    async def _after_refusal(self, leased: LeasedRecord) -> ChallengeRecord:
        """Find out what a 400 means: proven by an earlier POST, replaced by a new challenge, or refused."""
        record = leased.record
        if record.attempts > 1 and await self._upstream.is_proven(leased):
            return await self._settle_as_verified(leased)
        current = await self._upstream.current_challenge(leased)
        if current is None:
            return await self._defer(leased, RecordCode.CARD_API_UNAVAILABLE)
        if record.submission is not None and current == record.submission.parts()[0]:
            return await self._settle(leased, ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)
        superseded_by = _id_of(current, record)
        return await self._settle(leased, ChallengeState.SUPERSEDED, RecordCode.REPLACED_UPSTREAM, superseded_by)

    async def _settle_without_sending(
        self,
        leased: LeasedRecord,
        state: ChallengeState = ChallengeState.EXPIRED,
        code: RecordCode = RecordCode.NOT_DELIVERED,
    ) -> ChallengeRecord:
        """Settle a record that must not be sent: as verified if the card API has the proof, else as ``state``."""
        record, now = leased.record, self._clock.now()
        proven = await self._upstream.is_proven(leased)
        if proven:
            return await self._settle_as_verified(leased)
        may_be_processing = now < record.expires_at + self._limits.settle_grace_period
        if proven is False and not (state is ChallengeState.EXPIRED and may_be_processing):
            return await self._settle(leased, state, code)
        if now >= record.expires_at + _CHECK_STATUS_FOR:
            return await self._settle(leased, ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
        return await self._defer(leased, RecordCode.OUTCOME_UNKNOWN)

    async def _settle_as_verified(self, leased: LeasedRecord) -> ChallengeRecord:
        return await self._settle(leased, ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)

    async def _settle(
        self,
        leased: LeasedRecord,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
    ) -> ChallengeRecord:
        try:
            record = await self._store.settle(leased.lease, state, code, superseded_by)
        except LeaseLost:
            self._log(EventName.LEASE_LOST, leased.record)
            raise
        self._log(EventName.SETTLED, record, code=record.code)
        return record

    async def _defer(
        self, leased: LeasedRecord, code: RecordCode, retry_after: timedelta | None = None
    ) -> ChallengeRecord:
        backoff = self._limits.backoff.pause_after(leased.record.attempts, self._jitter)
        pause = max(backoff, retry_after or timedelta(0))
        try:
            record = await self._store.defer(leased.lease, code, pause)
        except LeaseLost:
            self._log(EventName.LEASE_LOST, leased.record)
            raise
        self._log(EventName.DEFERRED, record, code=code, duration_ms=pause.total_seconds() * 1000)
        return record

    def _time_left(self, leased: LeasedRecord) -> timedelta:
        """Return how long a call may take under this lease; may be negative."""
        return min(self._limits.request_timeout, leased.lease.remaining_at(self._monotonic()) - _LEASE_MARGIN)

    def _is_suspended(self) -> bool:
        suspended_for = self._card_api.suspended_for()
        return suspended_for is not None and suspended_for >= _LONG_SUSPENSION

    def _log(self, name: EventName, record: ChallengeRecord, **details: Unpack[AuditDetails]) -> None:
        details.setdefault("attempt", record.attempts)
        self._audit.write(AuditEvent.about(name, record, **details))


def _id_of(encoded: str, record: ChallengeRecord) -> str | None:
    """Return the id of the challenge that replaced ours; ``None`` if it cannot be decoded."""
    try:
        challenge = decode_challenge(encoded)
    except MalformedChallenge:
        return None
    return challenge_id(record.owner, challenge.domain, challenge.nonce)
