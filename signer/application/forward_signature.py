"""Deliver a recorded signature and settle its record. Any replica can repeat every step after any failure.

* The stored submission is delivered unchanged, under the one Idempotency-Key computed from it.
* Nothing is sent without a lease that outlives the request, nor after the challenge's deadline. The time left of a
  lease is measured by our monotonic clock from before the store was called, so a stall in between counts.
* A replica that is cancelled while it waits for the card API hands the challenge back; another one continues at once.
* A replica that did not make the signature checks it first (``stored_signature_check``).
* What follows the result of a delivery is decided in ``settle_or_defer``.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Final

from signer.application.ports import CardApi, ChallengeStore, Clock, EventName, LeasedRecord
from signer.application.settle_or_defer import SettleOrDefer
from signer.application.stored_signature_check import StoredSignatureCheck
from signer.domain.errors import LeaseLost, SignerError
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord

POLL_INTERVAL: Final = 0.1
"""Seconds between two reads of a record that another replica works on, or that waits for its next attempt."""
_LONG_SUSPENSION: Final = timedelta(seconds=1)
"""If calls stay suspended for at least this long, the caller gets its response now, and recovery delivers."""


class ForwardSignature:
    """Delivers signatures, one attempt at a time, and settles their records."""

    def __init__(
        self,
        *,
        store: ChallengeStore,
        card_api: CardApi,
        check: StoredSignatureCheck,
        clock: Clock,
        settling: SettleOrDefer,
    ) -> None:
        self._store = store
        self._card_api = card_api
        self._check = check
        self._clock = clock
        self._settling = settling

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
            await asyncio.sleep(POLL_INTERVAL)
            record = await self._store.get(record.id) or record
        return record

    async def take_over(self, challenge_id: str) -> ChallengeRecord | None:
        """Continue with a challenge that another replica, or an earlier attempt, left unsettled.

        Returns:
            The record, settled or deferred; ``None`` if there was nothing to do.

        Raises:
            Unavailable, LeaseLost: as ``attempt`` does.
        """
        leased = await self._store.begin_forwarding(challenge_id)
        if leased is None:
            expired = await self._store.expire(challenge_id)
            if expired is not None:
                self._settling.log(EventName.SETTLED, expired, code=expired.code)
            return expired
        self._settling.log(EventName.TAKEN_OVER, leased.record)
        rejection = self._check.rejection_reason(leased.record)
        if rejection is None:
            return await self.attempt(leased)
        if rejection is RecordCode.NOT_YET_VALID:  # a clock is wrong, and it may be ours
            return await self._settling.defer(leased, rejection)
        earlier_attempts = leased.record.attempts - (1 if leased.deliverable else 0)  # the store has counted this one
        if earlier_attempts:  # it may have been accepted
            return await self._settling.without_sending(leased, ChallengeState.REJECTED, rejection)
        return await self._settling.settle(leased, ChallengeState.REJECTED, rejection)

    async def attempt(self, leased: LeasedRecord) -> ChallengeRecord:
        """Deliver once; return the record, settled or deferred.

        Raises:
            Unavailable, LeaseLost: the store failed, or the lease was lost; the delivery may have happened.
        """
        try:
            return await self._attempt(leased)
        except asyncio.CancelledError:
            with suppress(SignerError, LeaseLost):
                await self._settling.hand_back(leased)
            raise

    async def _attempt(self, leased: LeasedRecord) -> ChallengeRecord:
        record = leased.record
        if record.submission is None or not leased.deliverable:
            return await self._settling.without_sending(leased)
        timeout = min(self._settling.time_left(leased), record.expires_at - self._clock.now())
        if timeout <= timedelta(0):  # only the store's clock decides that it has expired; an earlier POST may be open
            return await self._settling.defer(leased, RecordCode.NO_TIME_LEFT)
        started = time.perf_counter()
        result = await self._card_api.submit(record.customer_id, record.submission, timeout=timeout)
        if result.was_sent:
            self._settling.log(
                EventName.DELIVERED,
                record,
                code=result.verdict,
                status=result.status,
                duration_ms=(time.perf_counter() - started) * 1000,
                idempotency_key=record.submission.idempotency_key,
            )
        return await self._settling.after_delivery(leased, result)

    def _is_suspended(self) -> bool:
        suspended_for = self._card_api.suspended_for()
        return suspended_for is not None and suspended_for >= _LONG_SUSPENSION
