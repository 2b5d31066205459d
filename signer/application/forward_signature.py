"""Deliver a recorded signature, and settle its record. Safe to run again, by anybody, after any failure.

* The stored body is delivered unchanged, under the one Idempotency-Key that is computed from it.
* Nothing is POSTed without a lease that outlives the request, nor past the challenge's deadline. What is left of a
  lease is told by our own monotonic clock, from before the store was asked, so that a stall in between counts.
* A question after a POST ends with the lease, too; whoever is stopped while he waits for the card API puts the
  challenge down first, for another to take up at once.
* Whoever did not make the signature himself checks it again first: the policy with his own settings and clock, the
  signature against the owner.
* An answer that leaves the outcome open is followed by the same request again; from the third time on, and at the
  deadline, by a question first: what an API keeps answering under one Idempotency-Key need not be how things are.
* A 404 is believed when the customer itself is not there either and the card API lets us in anew at the same time: not
  every 404 is the card API's, and a gateway that is lost gives it to everything.
* That the card API has no proof is believed when it cannot be at work on one any more: a while after the deadline.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from signer.application.ports import (
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
from signer.domain.challenge import decode_challenge
from signer.domain.errors import (
    ErrorCode,
    LeaseLost,
    MalformedChallenge,
    NotFound,
    SignerError,
    UpstreamTimeout,
)
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, challenge_id

Answer = TypeVar("Answer")

_S = ChallengeState
_V = DeliveryVerdict
_END_FOR_VERDICT: Final = {
    _V.ACCEPTED: (_S.VERIFIED, None),
    _V.ALREADY_SIGNED: (_S.ALREADY_SIGNED, RecordCode.ALREADY_SIGNED_UPSTREAM),
    _V.IDEMPOTENCY_KEY_REFUSED: (_S.REJECTED, RecordCode.IDEMPOTENCY_KEY_REFUSED),
}
_PAUSE_FOR_VERDICT: Final = {
    _V.CREDENTIALS_REFUSED: RecordCode.CREDENTIALS_REFUSED,
    _V.NOT_PROCESSED: RecordCode.CARD_API_BUSY,
    _V.UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
}

CUSTOMER_NOT_PROVEN = "initiating"
"""The status of a customer whose challenge the card API has not verified yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingLimits:
    """How hard a delivery is tried.

    Attributes:
        request_timeout: the longest that one POST, or one question, may take.
        lease_margin: how much of the lease has to be left when a POST, or a question, ends: for the settling.
        first_pause: before the second attempt; it doubles with each one, and is jittered to between half and all of it.
        longest_pause: the cap on that.
        check_status_after_attempts: from this attempt on, an open outcome is followed by a question about the customer.
        settle_grace_period: how long after the deadline the card API may still process a POST that began before it.
        ask_for: how long after the deadline an unknown outcome is asked about, before it is closed as unknown.
    """

    request_timeout: timedelta = timedelta(seconds=8)
    lease_margin: timedelta = timedelta(seconds=2)
    first_pause: timedelta = timedelta(milliseconds=250)
    longest_pause: timedelta = timedelta(seconds=30)
    check_status_after_attempts: int = 3
    settle_grace_period: timedelta = timedelta(seconds=30)
    ask_for: timedelta = timedelta(hours=1)

    def pause_after(self, attempts: int, asked: timedelta | None, jitter: Callable[[], float]) -> timedelta:
        """Give the pause behind attempt number ``attempts``; what the API asked for is a lower bound."""
        doubled: timedelta = self.first_pause * 2.0 ** min(max(attempts - 1, 0), 16)
        pause = min(doubled, self.longest_pause) * (0.5 + jitter() / 2)
        return pause if asked is None else max(asked, pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardSignature:
    """The use case: one attempt at a time."""

    store: ChallengeStore
    card_api: CardApi
    doubts: StoredSignatureCheck
    clock: Clock
    audit: AuditLog
    limits: ForwardingLimits
    jitter: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic

    async def attempt(self, held: LeasedRecord) -> ChallengeRecord:
        """Deliver what this process has just signed and recorded; gives the record, settled or deferred.

        Raises:
            Unavailable: the store failed, or the lease was lost; the delivery itself may have happened.
        """
        record = held.record
        if record.submission is None or not held.deliverable:
            return await self._close(held)
        timeout = self._timeout(held)
        if timeout <= timedelta(0):  # by our clock, or our hold on it; the store's clock alone says when it is over
            return await self._defer(held, RecordCode.OUTCOME_UNKNOWN)
        started = time.perf_counter()
        delivery = await self._at_the_api(
            held,
            self.card_api.submit(
                record.customer_id,
                record.submission,
                idempotency_key=record.submission.idempotency_key,
                timeout=timeout,
            ),
        )
        self._write(
            EventName.DELIVERED,
            record,
            code=delivery.verdict.name.lower(),
            status=delivery.status,
            duration_ms=(time.perf_counter() - started) * 1000,
            idempotency_key=record.submission.idempotency_key,
        )
        return await self._conclude(held, delivery)

    async def take_over(self, challenge_id: str) -> ChallengeRecord | None:
        """Go on with a challenge that somebody else, or an earlier attempt, left unsettled.

        Returns:
            The record, settled or deferred; ``None`` where there was nothing to take.

        Raises:
            Unavailable: as ``attempt`` does.
        """
        held = await self.store.begin_forwarding(challenge_id)
        if held is None:
            expired = await self.store.expire(challenge_id)
            if expired is not None:
                self._write(EventName.SETTLED, expired, code=expired.code)
            return expired
        self._write(EventName.TAKEN_OVER, held.record)
        doubt = self.doubts.about(held.record)
        if doubt is None:
            return await self.attempt(held)
        if doubt is RecordCode.NOT_YET_VALID:  # a clock is wrong, perhaps ours: that ends nothing
            return await self._defer(held, doubt)
        if held.record.attempts > int(held.deliverable):  # it was sent before us, and may have been accepted
            return await self._close(held, ChallengeState.REJECTED, doubt)
        return await self._settle(held, ChallengeState.REJECTED, doubt)

    def _timeout(self, held: LeasedRecord) -> timedelta:
        return min(self._time_to_ask(held), held.record.expires_at - self.clock.now())

    def _time_to_ask(self, held: LeasedRecord) -> timedelta:
        """Say how long the card API may take; what it answers later is for the next holder to find out."""
        return min(self.limits.request_timeout, held.lease.left(self.monotonic()) - self.limits.lease_margin)

    async def _conclude(self, held: LeasedRecord, delivery: DeliveryResult) -> ChallengeRecord:
        verdict = delivery.verdict
        if verdict is DeliveryVerdict.CONFLICT_AMBIGUOUS:
            return await self._ask_which_conflict(held, delivery)
        if verdict is DeliveryVerdict.REFUSED:
            return await self._ask_whether_replaced(held)
        if verdict is DeliveryVerdict.CUSTOMER_UNKNOWN:
            return await self._ask_whether_known(held, delivery)
        if verdict is DeliveryVerdict.UNKNOWN and self._is_to_be_asked_about(held, delivery):
            return await self._ask_whether_processed(held, delivery)
        if verdict in _END_FOR_VERDICT:
            return await self._settle(held, *_END_FOR_VERDICT[verdict])
        return await self._defer(held, _PAUSE_FOR_VERDICT[verdict], delivery.retry_after)

    async def _ask_which_conflict(self, held: LeasedRecord, delivery: DeliveryResult) -> ChallengeRecord:
        proven = await self._is_proven(held)
        if proven:
            return await self._settle(held, ChallengeState.ALREADY_SIGNED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
        return await self._defer(held, RecordCode.CARD_API_BUSY, delivery.retry_after)

    async def _ask_whether_known(self, held: LeasedRecord, delivery: DeliveryResult) -> ChallengeRecord:
        try:
            await self._customer_status(held)
        except NotFound:
            return await self._settle(held, ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)
        except SignerError:
            pass
        return await self._defer(held, RecordCode.CARD_API_UNAVAILABLE, delivery.retry_after)

    def _is_to_be_asked_about(self, held: LeasedRecord, delivery: DeliveryResult) -> bool:
        """Tell an API that answers, again and again, what says nothing from one that does not answer."""
        return delivery.status is not None and held.record.attempts >= self.limits.check_status_after_attempts

    async def _ask_whether_processed(self, held: LeasedRecord, delivery: DeliveryResult) -> ChallengeRecord:
        if await self._is_proven(held):
            return await self._settle(held, ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
        return await self._defer(held, RecordCode.CARD_API_UNAVAILABLE, delivery.retry_after)

    async def _ask_whether_replaced(self, held: LeasedRecord) -> ChallengeRecord:
        record = held.record
        if record.attempts > 1 and await self._is_proven(held):  # an earlier POST was accepted, and nobody heard of it
            return await self._settle(held, ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
        try:
            current = await self._ask(held, self.card_api.fetch_challenge)
        except SignerError:
            return await self._defer(held, RecordCode.CARD_API_UNAVAILABLE)
        ours = None if record.submission is None else record.submission.parts()[0]
        if current == ours:
            return await self._settle(held, ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)
        return await self._settle(
            held,
            ChallengeState.SUPERSEDED,
            RecordCode.REPLACED_UPSTREAM,
            superseded_by=_id_of(current, record),
        )

    async def _close(
        self,
        held: LeasedRecord,
        state: ChallengeState = ChallengeState.EXPIRED,
        code: RecordCode = RecordCode.NOT_DELIVERED,
    ) -> ChallengeRecord:
        """End a record that must not be POSTed by asking what became of it: as ``state`` where it is not proven."""
        proven = await self._is_proven(held)
        if proven:
            return await self._settle(held, ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
        if proven is False and not (state is ChallengeState.EXPIRED and self._may_be_at_work(held.record)):
            return await self._settle(held, state, code)
        if self.clock.now() >= held.record.expires_at + self.limits.ask_for:
            return await self._settle(held, ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
        return await self._defer(held, RecordCode.OUTCOME_UNKNOWN)

    async def _is_proven(self, held: LeasedRecord) -> bool | None:
        """Ask whether the card API has its proof; ``None`` where it does not say."""
        try:
            status = await self._customer_status(held)
        except NotFound:
            return False
        except SignerError:
            return None
        return status != CUSTOMER_NOT_PROVEN

    def _may_be_at_work(self, record: ChallengeRecord) -> bool:
        return self.clock.now() < record.expires_at + self.limits.settle_grace_period

    async def _customer_status(self, held: LeasedRecord) -> str:
        try:
            return await self._ask(held, self.card_api.customer_status)
        except NotFound:
            await self._at_the_api(held, self.card_api.authenticate(timeout=self._time_to_ask(held)))
            raise

    async def _ask(self, held: LeasedRecord, reading: Callable[..., Awaitable[str]]) -> str:
        timeout = self._time_to_ask(held)
        if timeout <= timedelta(0):
            raise UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "No time was left to ask the card API.")
        return await self._at_the_api(held, reading(held.record.customer_id, timeout=timeout))

    async def _at_the_api(self, held: LeasedRecord, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except asyncio.CancelledError:
            with suppress(SignerError):
                await self._put_down(held, RecordCode.HANDED_BACK, timedelta(0))
            raise

    async def _settle(
        self,
        held: LeasedRecord,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
    ) -> ChallengeRecord:
        record = await self._under_lease(held, self.store.settle(held.lease, state, code, superseded_by))
        self._write(EventName.SETTLED, record, code=record.code)
        return record

    async def _defer(self, held: LeasedRecord, code: RecordCode, asked: timedelta | None = None) -> ChallengeRecord:
        return await self._put_down(held, code, self.limits.pause_after(held.record.attempts, asked, self.jitter))

    async def _put_down(self, held: LeasedRecord, code: RecordCode, pause: timedelta) -> ChallengeRecord:
        record = await self._under_lease(held, self.store.defer(held.lease, code, pause))
        self._write(EventName.DEFERRED, record, code=code, duration_ms=pause.total_seconds() * 1000)
        return record

    async def _under_lease(self, held: LeasedRecord, move: Awaitable[ChallengeRecord]) -> ChallengeRecord:
        try:
            return await move
        except LeaseLost:
            self._write(EventName.LEASE_LOST, held.record)
            raise

    def _write(
        self,
        name: EventName,
        record: ChallengeRecord,
        *,
        code: str | None = None,
        status: int | None = None,
        duration_ms: float | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        self.audit.write(
            AuditEvent.about(
                name,
                record,
                code=code,
                attempt=record.attempts,
                status=status,
                duration_ms=duration_ms,
                idempotency_key=idempotency_key,
            ),
        )


def _id_of(encoded: str, record: ChallengeRecord) -> str | None:
    """Name the challenge that the card API issued instead, where it can be read."""
    try:
        challenge = decode_challenge(encoded)
    except MalformedChallenge:
        return None
    return challenge_id(record.owner, challenge.domain, challenge.nonce)
