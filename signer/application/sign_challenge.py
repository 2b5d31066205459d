"""Sign one challenge exactly once and deliver the signature: get → check → claim → sign and record → deliver.

* A challenge that cannot be decoded is refused first; one that the policy refuses does not claim its nonce.
* A nonce is claimed before it is signed, and a signature is recorded before any caller sees it.
* If another replica holds the lease, the policy is checked again before each new claim, because time has passed.
* A replica that loses its lease discards what it signed, and returns the result of the new lease holder.
* With ``refresh``, a challenge that has expired, or was replaced upstream, is exchanged for the card API's current one,
  at most twice. Each new challenge is decoded and checked in full.
* If a challenge is refused that the card API issued to us, and not to the caller, the card API is to blame. If it is
  for another owner, ``ownerId`` is wrong, and the caller is to blame.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Unpack

from signer.application.forward_signature import POLL_INTERVAL, ForwardSignature
from signer.application.ports import (
    AuditEvent,
    AuditFields,
    AuditLog,
    CardApi,
    ChallengeStore,
    Claim,
    ClaimOutcome,
    ClaimResult,
    Clock,
    EventName,
    KeyRing,
    Lease,
    LeasedRecord,
    SigningKey,
)
from signer.application.refusals import EXPIRY_REFUSALS, in_progress, refused_upstream, require_key
from signer.application.sign_request import SignRequest, can_reuse
from signer.domain.challenge import MAX_BASE64, Challenge, decode_challenge
from signer.domain.errors import (
    Conflict,
    ErrorCode,
    LeaseLost,
    MalformedChallenge,
    RefusedByPolicy,
    SignerError,
    Unavailable,
)
from signer.domain.ethereum import AccountId, EvmSignature
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, SignatureForm, Submission, challenge_id

_MAX_REFRESHES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningLimits:
    """Time and size limits of a signing.

    Attributes:
        work_timeout: how long the work for one request lasts at most; recovery continues after it.
        fetch_timeout: the longest that fetching a challenge may take.
        signature_form: the form of the card API's field ``signature``.
        max_base64: the longest challenge, in characters.
    """

    work_timeout: timedelta
    fetch_timeout: timedelta
    signature_form: SignatureForm
    max_base64: int = MAX_BASE64


class SignChallenge:
    """Signs one challenge for one request, then delivers with ``ForwardSignature``."""

    def __init__(
        self,
        *,
        policy: SigningPolicy,
        keys: KeyRing,
        store: ChallengeStore,
        card_api: CardApi,
        forward: ForwardSignature,
        clock: Clock,
        audit: AuditLog,
        limits: SigningLimits,
    ) -> None:
        self._policy = policy
        self._keys = keys
        self._store = store
        self._card_api = card_api
        self._forward = forward
        self._clock = clock
        self._audit = audit
        self._limits = limits

    async def __call__(self, request: SignRequest) -> ChallengeRecord:
        """Sign one challenge and deliver the signature. ``docs/one-challenge.md`` explains these steps.

        Returns:
            The record: done, or with its signature still to be delivered.

        Raises:
            MalformedChallenge, RefusedByPolicy, NotFound, Conflict: this request claimed no nonce for the challenge
                that the error is about, and nothing was signed.
            ChallengeRefused: the same, for a challenge that was fetched and is for this owner.
            Unavailable: ``challenge_in_progress`` if another replica held the lease until ``work_timeout``; else which
                part is down.
            BadUpstream: the card API's challenge could not be fetched.
        """
        deadline = time.monotonic() + self._limits.work_timeout.total_seconds()
        given = None if request.challenge is None else self._decode(request.challenge)
        key = require_key(self._keys, request.owner)
        if given is None:
            record = await self._resume_known(request, deadline)
            if record is not None:
                return record
        challenge = given or self._decode_issued(request)
        refreshes = _MAX_REFRESHES if request.refresh else 0
        while True:
            challenge = challenge or await self._fetch(request)
            claim = self._claim_for(request, challenge)
            expiry_refusal = self._check_policy(challenge, request.owner, is_given=challenge is given)
            if expiry_refusal is not None and not await self._was_signed(claim):
                if not refreshes:
                    raise expiry_refusal
                challenge, refreshes = None, refreshes - 1
                continue
            await self._check_audit_log(claim)
            claimed = await self._claim(claim)
            leased = await self._sign_and_record(claimed, challenge, key)
            record = await self._deliver(leased, claimed, deadline, forward=request.forward)
            if record is None:  # another replica holds the lease
                await self._pause(deadline)
            elif record.state is ChallengeState.SUPERSEDED and refreshes:
                challenge, refreshes = None, refreshes - 1
            else:
                return record

    async def _resume_known(self, request: SignRequest, deadline: float) -> ChallengeRecord | None:
        """Continue with the customer's newest challenge if it is proven, or signed and not in a final state."""
        known = await self._store.find(request.customer_id, request.owner)
        if known is None or not can_reuse(known):
            return None
        claimed = await self._claim(_claim_for_record(known, request))
        record = await self._deliver(None, claimed, deadline, forward=request.forward)
        return None if record is None or (request.refresh and record.state is ChallengeState.SUPERSEDED) else record

    def _decode_issued(self, request: SignRequest) -> Challenge | None:
        """Return the challenge of the creation's response; ``None`` if there is none that can be decoded."""
        with suppress(MalformedChallenge):
            return None if request.issued is None else self._decode(request.issued)
        return None

    async def _fetch(self, request: SignRequest) -> Challenge:
        self._policy.check_owner(request.owner)
        timeout = self._limits.fetch_timeout
        fetched = await self._card_api.fetch_challenge(request.customer_id, timeout=timeout, is_new=request.is_new)
        try:
            return self._decode(fetched)
        except MalformedChallenge as refusal:
            raise refused_upstream(refusal) from None

    def _decode(self, encoded: str) -> Challenge:
        return decode_challenge(encoded, max_base64=self._limits.max_base64)

    def _check_policy(self, challenge: Challenge, owner: AccountId, *, is_given: bool) -> SignerError | None:
        """Raise the policy's refusal, but return it if the challenge has only expired: a newer one may pass.

        ``is_given``: whether the caller sent the challenge, so that the refusal is the caller's to mend.
        """
        now = self._clock.now()
        try:
            self._policy.check(challenge, owner, now)
            self._policy.check_time_left(challenge, now)
        except RefusedByPolicy as refusal:
            error = refusal if is_given else refused_upstream(refusal)
            if refusal.code in EXPIRY_REFUSALS:
                return error
            raise error from None
        return None

    async def _check_audit_log(self, claim: Claim) -> None:
        """Raise ``audit_unavailable`` if the log cannot be written, unless only a delivery is left to do."""
        try:
            self._audit.check()
        except Unavailable:
            if not await self._was_signed(claim):
                raise

    async def _was_signed(self, claim: Claim) -> bool:
        known = await self._store.get(claim.id)
        return known is not None and known.message_hash == claim.message_hash and not known.state.is_unsigned

    def _claim_for(self, request: SignRequest, challenge: Challenge) -> Claim:
        return Claim(
            id=challenge_id(request.owner, challenge.domain, challenge.nonce),
            message_hash=challenge.message_hash,
            customer_id=request.customer_id,
            owner=request.owner,
            forward=request.forward,
            issued_at=challenge.issued_at,
            expires_at=challenge.deadline(self._policy.max_age),
        )

    async def _claim(self, claim: Claim) -> ClaimResult:
        claimed = await self._store.claim(claim)
        if claimed.outcome is ClaimOutcome.NONCE_REUSED:
            raise Conflict(
                ErrorCode.NONCE_REUSED,
                "Another message with this nonce was claimed before. A nonce is signed once: fetch a new challenge.",
                field="challenge",
            )
        if claimed.outcome is ClaimOutcome.OTHER_CUSTOMER:
            raise Conflict(
                ErrorCode.CHALLENGE_BOUND_ELSEWHERE,
                "This challenge was sent before for another customerId, and a challenge is signed once: check which "
                "customerId was sent first. For the right one, wait until the card API issues a new challenge: this "
                f"one expires at {claim.expires_at:%Y-%m-%dT%H:%M:%SZ}, at most policy.max_age after Issued At.",
                field="customerId",
            )
        return claimed

    async def _sign_and_record(
        self, claimed: ClaimResult, challenge: Challenge, key: SigningKey
    ) -> LeasedRecord | None:
        """Sign if the claim gave us the lease, and record the signature; ``None`` if we do not hold the lease."""
        if claimed.lease is None:
            return None
        self._log(EventName.CLAIMED, claimed.record)
        started = time.perf_counter()
        try:
            signature = await self._sign(claimed.lease, challenge, key)
            submission = Submission.of(
                claimed.record.owner, challenge.to_base64(), signature, self._limits.signature_form
            )
            leased = await self._store.record_signature(claimed.lease, submission)
        except LeaseLost:
            self._log(EventName.LEASE_LOST, claimed.record)
            return None
        duration_ms = (time.perf_counter() - started) * 1000
        self._log(EventName.SIGNED, leased.record, key_uri=key.uri, duration_ms=duration_ms)
        return leased

    async def _sign(self, lease: Lease, challenge: Challenge, key: SigningKey) -> EvmSignature:
        """Sign; if the key backend fails or we are cancelled, release the nonce for the same message."""
        try:
            return await key.sign(challenge.message_to_sign())
        except SignerError as error:
            is_invalid = error.code is ErrorCode.KEY_SIGNATURE_INVALID
            code = RecordCode.KEY_SIGNATURE_INVALID if is_invalid else RecordCode.KEY_BACKEND_UNAVAILABLE
            await self._release(lease, code, {"key_uri": key.uri, "cause": error.cause, "reason": error.detail})
            raise
        except asyncio.CancelledError:
            with suppress(SignerError, LeaseLost):
                await self._release(lease, RecordCode.HANDED_BACK, {"key_uri": key.uri})
            raise

    async def _release(self, lease: Lease, code: RecordCode, why: AuditFields) -> None:
        self._log(EventName.RELEASED, await self._store.release(lease, code), **why)

    async def _deliver(
        self, leased: LeasedRecord | None, claimed: ClaimResult, deadline: float, *, forward: bool
    ) -> ChallengeRecord | None:
        """Deliver what we signed, or follow what was signed before; ``None`` if it is not signed yet."""
        if leased is not None:
            return await self._forward.deliver(leased, deadline)
        if claimed.outcome is not ClaimOutcome.PAST_SIGNING:
            return None
        return await self._forward.follow(claimed.record, deadline) if forward else claimed.record

    async def _pause(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise in_progress()
        await asyncio.sleep(POLL_INTERVAL)

    def _log(self, name: EventName, record: ChallengeRecord, **details: Unpack[AuditFields]) -> None:
        details.setdefault("code", record.code)
        self._audit.write(AuditEvent.about(name, record, **details))


def _claim_for_record(known: ChallengeRecord, request: SignRequest) -> Claim:
    return Claim(
        id=known.id,
        message_hash=known.message_hash,
        customer_id=request.customer_id,
        owner=known.owner,
        forward=request.forward,
        issued_at=known.issued_at,
        expires_at=known.expires_at,
    )
