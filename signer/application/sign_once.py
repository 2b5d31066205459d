"""Sign one challenge once: check → claim → sign → record → deliver, and follow it to its end.

* A nonce is claimed before it is signed; a signature is recorded before anybody sees it.
* Each look at a challenge that is in other hands checks the policy again: time passes.
* Whoever loses its lease forgets what it signed: the answer is what the new holder makes of it.
* Whoever is stopped in the middle gives the nonce back, for the same message only.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from signer.application.forward_signature import ForwardSignature
from signer.application.ports import (
    AuditEvent,
    AuditLog,
    CardApi,
    ChallengeStore,
    Claim,
    ClaimOutcome,
    ClaimResult,
    Clock,
    EventName,
    Lease,
    LeasedRecord,
    SigningKey,
)
from signer.domain.challenge import MAX_BASE64, Challenge
from signer.domain.errors import Conflict, ErrorCode, LeaseLost, RefusedByPolicy, SignerError, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, SignatureForm, Submission

_TOO_LONG_TO_WAIT: Final = timedelta(seconds=1)
_PAST_ITS_TIME: Final = frozenset({ErrorCode.CHALLENGE_EXPIRED, ErrorCode.CHALLENGE_EXPIRES_TOO_SOON})


class PastItsTime(Exception):
    """A challenge is too old to be begun, and was not signed before.

    Attributes:
        refusal: what to tell a caller who has no other.
    """

    def __init__(self, refusal: RefusedByPolicy) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningLimits:
    """How long, and how large.

    Attributes:
        work_for: how long one piece of work goes on before it is left to recovery.
        look_within: how much of a caller's time is kept to look up the record where the work is not done by then.
        poll_every: how often a challenge in other hands is looked at.
        fetch_timeout: the longest that fetching a challenge may take.
        max_base64: the longest challenge, in characters.
        signature_form: the form of the card API's field ``signature``.
        most_at_once: how many different pieces of work are under way at the same time; more are refused.
    """

    work_for: timedelta = timedelta(seconds=10)
    look_within: timedelta = timedelta(seconds=1)
    poll_every: timedelta = timedelta(milliseconds=100)
    fetch_timeout: timedelta = timedelta(seconds=8)
    max_base64: int = MAX_BASE64
    signature_form: SignatureForm = SignatureForm.HEX
    most_at_once: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOnce:
    """The way of one challenge that is given."""

    policy: SigningPolicy
    store: ChallengeStore
    card_api: CardApi
    forward: ForwardSignature
    clock: Clock
    audit: AuditLog
    limits: SigningLimits

    async def __call__(self, encoded: str, challenge: Challenge, claim: Claim, key: SigningKey) -> ChallengeRecord:
        """Sign ``challenge`` and, where the claim says so, deliver it.

        Args:
            encoded: the challenge as it was received, base64.
            challenge: what it says.
            claim: the wish to sign it.
            key: the owner's.

        Raises:
            PastItsTime: another challenge may do.
            RefusedByPolicy, Conflict, Unavailable: as ``SignChallenge`` does.
        """
        ends = self._ends()
        while True:
            try:
                now = self.clock.now()
                self.policy.check(challenge, claim.owner, now)
                self.policy.check_time_left(challenge, now)
            except RefusedByPolicy as refusal:
                if refusal.code not in _PAST_ITS_TIME:
                    raise
                if await self._was_signed(claim):
                    return await self.carry_on(claim)
                raise PastItsTime(refusal) from None
            claimed = await self._claim(claim)
            if claimed.lease is not None:
                self._moved(EventName.CLAIMED, claimed.record)
                try:
                    held = await self._sign_and_record(claimed.lease, claimed.record, encoded, challenge, key)
                except LeaseLost:
                    self._moved(EventName.LEASE_LOST, claimed.record)
                else:
                    return await self._deliver(held, ends)
            elif claimed.outcome is ClaimOutcome.PAST_SIGNING:
                return await self._follow(claimed.record, ends) if claim.forward else claimed.record
            if time.monotonic() >= ends:
                raise in_progress()
            await asyncio.sleep(self.limits.poll_every.total_seconds())

    async def carry_on(self, claim: Claim) -> ChallengeRecord:
        """Go on with a challenge that is past its signing; the claim says whether this caller wants it delivered."""
        record = (await self._claim(claim)).record
        if not claim.forward:
            return record
        return await self._follow(record, self._ends())

    async def _was_signed(self, claim: Claim) -> bool:
        known = await self.store.get(claim.id)
        return known is not None and known.message_hash == claim.message_hash and not known.state.is_unsigned

    async def _claim(self, claim: Claim) -> ClaimResult:
        claimed = await self.store.claim(claim)
        if claimed.outcome is ClaimOutcome.NONCE_REUSED:
            raise Conflict(
                ErrorCode.NONCE_REUSED,
                "Another message with this nonce was claimed before; a nonce is signed once. Fetch a new challenge.",
                field="challenge",
            )
        if claimed.outcome is ClaimOutcome.OTHER_CUSTOMER:
            raise Conflict(
                ErrorCode.CHALLENGE_BOUND_ELSEWHERE,
                "This challenge was claimed for another customerId; it can prove one customer only.",
                field="customerId",
            )
        return claimed

    async def _sign_and_record(
        self,
        lease: Lease,
        record: ChallengeRecord,
        encoded: str,
        challenge: Challenge,
        key: SigningKey,
    ) -> LeasedRecord:
        started = time.perf_counter()
        try:
            signature = await key.sign(challenge.message_to_sign())
        except SignerError as error:
            is_invalid = error.code is ErrorCode.KEY_SIGNATURE_INVALID
            code = RecordCode.KEY_SIGNATURE_INVALID if is_invalid else RecordCode.KEY_BACKEND_UNAVAILABLE
            await self._release(lease, code, key)
            raise
        except asyncio.CancelledError:
            with suppress(SignerError):
                await self._release(lease, RecordCode.HANDED_BACK, key)
            raise
        submission = Submission.of(record.owner, encoded, signature, self.limits.signature_form)
        held = await self.store.record_signature(lease, submission)
        duration_ms = (time.perf_counter() - started) * 1000
        self._moved(EventName.SIGNED, held.record, key_uri=key.uri, duration_ms=duration_ms)
        return held

    async def _release(self, lease: Lease, code: RecordCode, key: SigningKey) -> None:
        self._moved(EventName.RELEASED, await self.store.release(lease, code), key_uri=key.uri)

    async def _deliver(self, held: LeasedRecord, ends: float) -> ChallengeRecord:
        """Go on until the record is settled or the work's time is over; recovery has it then."""
        record = held.record
        if record.state is ChallengeState.FORWARDING:
            with suppress(LeaseLost):
                record = await self.forward.attempt(held)
        return await self._follow(record, ends)

    async def _follow(self, record: ChallengeRecord, ends: float) -> ChallengeRecord:
        while not record.is_settled and time.monotonic() < ends and not self._is_held_off():
            try:
                moved = await self.forward.take_over(record.id)
            except LeaseLost:
                moved = None
            if moved is not None and moved.is_settled:
                return moved
            await asyncio.sleep(self.limits.poll_every.total_seconds())
            record = await self.store.get(record.id) or record
        return record

    def _ends(self) -> float:
        return time.monotonic() + self.limits.work_for.total_seconds()

    def _is_held_off(self) -> bool:
        """Tell whether nothing will be delivered for so long that a caller is not kept waiting for it."""
        suspended_for = self.card_api.suspended_for()
        return suspended_for is not None and suspended_for >= _TOO_LONG_TO_WAIT

    def _moved(
        self,
        name: EventName,
        record: ChallengeRecord,
        *,
        key_uri: str | None = None,
        duration_ms: float | None = None,
    ) -> None:
        self.audit.write(AuditEvent.about(name, record, code=record.code, key_uri=key_uri, duration_ms=duration_ms))


def in_progress() -> Unavailable:
    """Make the answer to a caller whose time is over before there is a signature to show."""
    return Unavailable(
        ErrorCode.CHALLENGE_IN_PROGRESS,
        "The challenge is being worked on and this request's time is over; ask again for the same.",
        retry_after=1.0,
    )
