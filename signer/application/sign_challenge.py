"""One challenge, end to end: decode → check → claim → sign → record → deliver.

* Nothing is spent before the policy has said yes; no claim, no signature.
* The signature and the body to deliver are durable before anyone outside sees them.
* The same request again gives the same answer, also after the challenge's time, for the record remembers.
* A request that goes away leaves its work running; requests for the same work share it.
* A challenge that is past its time, or was replaced upstream, is exchanged for the card API's present one where the
  request allows it, at most twice; each one is read and judged in full.
* A caller gets an answer within its time: the record if a signature is in it, else ``challenge_in_progress``; at once
  where the card API is not asked for now, for then it is recovery that delivers.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from signer.application.forward_signature import ForwardSignature
from signer.application.gate import Gate
from signer.application.ports import (
    AuditEvent,
    AuditLog,
    CardApi,
    ChallengeStore,
    Claim,
    Claimed,
    ClaimOutcome,
    Clock,
    EventName,
    Held,
    KeyRing,
    Lease,
    SigningKey,
)
from signer.domain.challenge import MAX_BASE64, Challenge, decode_challenge
from signer.domain.errors import (
    Conflict,
    ErrorCode,
    LeaseLost,
    NotFound,
    RefusedByPolicy,
    SignerError,
    Unavailable,
)
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, SignatureForm, Submission, challenge_id

_MOST_REFRESHES: Final = 2
_TOO_LONG_TO_WAIT: Final = timedelta(seconds=1)
_PAST_ITS_TIME: Final = frozenset({ErrorCode.CHALLENGE_EXPIRED, ErrorCode.CHALLENGE_EXPIRES_TOO_SOON})


class _PastItsTime(Exception):
    """A challenge is too old to be begun; it never leaves this module."""

    def __init__(self, refusal: RefusedByPolicy) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class SignRequest:
    """What a wallet backend asks for.

    Attributes:
        customer_id: the card API's UUID of the customer.
        owner: whose key is to sign.
        challenge: base64 as the card API issued it; ``None`` to have it fetched.
        forward: whether the card API is to get the signature.
        refresh: whether a challenge that is past its time, or that the card API has replaced, may be exchanged for the
            card API's present one.
    """

    customer_id: str
    owner: AccountId
    challenge: str | None = field(repr=False)
    forward: bool
    refresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningLimits:
    """How long, and how large.

    Attributes:
        work_for: how long one piece of work goes on before it is left to recovery.
        poll_every: how often a challenge in other hands is looked at.
        fetch_timeout: the longest that fetching a challenge may take.
        max_base64: the longest challenge, in characters.
        signature_form: the form of the card API's field ``signature``.
        most_at_once: how many different pieces of work are under way at the same time; more are refused.
    """

    work_for: timedelta = timedelta(seconds=10)
    poll_every: timedelta = timedelta(milliseconds=100)
    fetch_timeout: timedelta = timedelta(seconds=8)
    max_base64: int = MAX_BASE64
    signature_form: SignatureForm = SignatureForm.HEX
    most_at_once: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignChallenge:
    """The use case."""

    policy: SigningPolicy
    keys: KeyRing
    store: ChallengeStore
    card_api: CardApi
    forward: ForwardSignature
    clock: Clock
    audit: AuditLog
    limits: SigningLimits
    gate: Gate = field(default_factory=Gate)
    _under_way: dict[SignRequest, asyncio.Task[ChallengeRecord]] = field(default_factory=dict, init=False, repr=False)

    async def __call__(self, request: SignRequest, *, within: timedelta) -> ChallengeRecord:
        """Have the challenge signed and, where the request says so, delivered.

        Args:
            request: what is asked.
            within: how long the caller waits.

        Returns:
            The record, settled; or with its signature still on its way.

        Raises:
            MalformedChallenge, RefusedByPolicy, NotFound, Conflict: nothing was spent and nothing signed.
            Unavailable: ``challenge_in_progress`` where the time was too short; else what is down, or that this process
                takes no work. Ask again.
            BadUpstream: the card API's challenge could not be fetched for a reason of its own.
        """
        self.gate.check()
        work = self._under_way.get(request)
        if work is None:
            if len(self._under_way) >= self.limits.most_at_once:
                raise Unavailable(
                    ErrorCode.OVERLOADED,
                    "As many challenges are being worked on as this replica takes; ask again.",
                )
            work = asyncio.create_task(self._work(request))
            self._under_way[request] = work
            work.add_done_callback(lambda done: self._ended(request, done))
        await asyncio.wait({work}, timeout=within.total_seconds())
        if work.done() and not work.cancelled():  # `drain` cancels work, which is no reason to cancel its callers
            return work.result()
        return await self._answer_so_far(request)

    async def drain(self, within: timedelta) -> int:
        """Let the work that is under way end; gives how many pieces had to be left to recovery."""
        if not self._under_way:
            return 0
        _, left = await asyncio.wait(self._under_way.values(), timeout=within.total_seconds())
        for work in left:
            work.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    def _ended(self, request: SignRequest, work: asyncio.Task[ChallengeRecord]) -> None:
        self._under_way.pop(request, None)
        if not work.cancelled():
            work.exception()  # seen here, in case no caller is left to see it

    async def _answer_so_far(self, request: SignRequest) -> ChallengeRecord:
        """Answer a caller whose time is over while the work goes on."""
        if request.challenge is None:
            record = await self.store.find(request.customer_id, request.owner)
            if record is not None and not _answers_anew(record):  # an earlier challenge's end is no answer to this one
                record = None
        else:
            challenge = decode_challenge(request.challenge, max_base64=self.limits.max_base64)
            record = await self.store.get(challenge_id(request.owner, challenge.domain, challenge.nonce))
            if record is not None and record.message_hash != challenge.message_hash:
                record = None
        if record is not None and request.refresh and record.state is ChallengeState.SUPERSEDED:
            record = None  # the work goes on with the one that took its place
        if record is None or record.customer_id != request.customer_id or record.signature is None:
            raise _in_progress()
        return record

    async def _work(self, request: SignRequest) -> ChallengeRecord:
        try:
            return await self._sign(request)
        except Conflict as error:
            self._refused(EventName.CONFLICTED, request, error)
            raise
        except SignerError as error:
            self._refused(EventName.REFUSED, request, error)
            raise

    async def _sign(self, request: SignRequest) -> ChallengeRecord:
        encoded = request.challenge
        if encoded is not None:  # what cannot be read is refused before anything is looked up
            decode_challenge(encoded, max_base64=self.limits.max_base64)
        key = self.keys.find(request.owner.address)
        if key is None:
            raise NotFound(
                ErrorCode.OWNER_UNKNOWN,
                "No key of this service belongs to ownerId; GET /v1/keys lists the owners it can sign for.",
                field="ownerId",
            )
        if encoded is None:
            known = await self.store.find(request.customer_id, request.owner)
            if known is not None and _answers_anew(known):
                record = await self._carry_on(_claim_of(known, request))
                if not (request.refresh and record.state is ChallengeState.SUPERSEDED):
                    return record
            encoded = await self._fetch(request)
        return await self._sign_or_refresh(request, encoded, key)

    async def _fetch(self, request: SignRequest) -> str:
        return await self.card_api.fetch_challenge(request.customer_id, timeout=self.limits.fetch_timeout)

    async def _sign_or_refresh(self, request: SignRequest, encoded: str, key: SigningKey) -> ChallengeRecord:
        """Sign ``encoded``; where it is past its time, or replaced upstream, go on with what the card API has now."""
        for _ in range(_MOST_REFRESHES if request.refresh else 0):
            with suppress(_PastItsTime):
                record = await self._claim_and_sign(request, encoded, key)
                if record.state is not ChallengeState.SUPERSEDED:
                    return record
            encoded = await self._fetch(request)
        try:
            return await self._claim_and_sign(request, encoded, key)
        except _PastItsTime as past:
            raise past.refusal from None

    async def _claim_and_sign(self, request: SignRequest, encoded: str, key: SigningKey) -> ChallengeRecord:
        challenge = decode_challenge(encoded, max_base64=self.limits.max_base64)
        claim = Claim(
            id=challenge_id(request.owner, challenge.domain, challenge.nonce),
            message_hash=challenge.message_hash,
            customer_id=request.customer_id,
            owner=request.owner,
            forward=request.forward,
            issued_at=challenge.issued_at,
            expires_at=challenge.deadline(self.policy.max_age),
        )
        ends = time.monotonic() + self.limits.work_for.total_seconds()
        while True:
            try:
                now = self.clock.now()
                self.policy.check(challenge, request.owner, now)
                self.policy.check_time_left(challenge, now)
            except RefusedByPolicy as refusal:
                if refusal.code not in _PAST_ITS_TIME:
                    raise
                if await self._was_signed(claim):
                    return await self._carry_on(claim)
                raise _PastItsTime(refusal) from None
            claimed = await self._claim(claim)
            if claimed.lease is not None:
                self._moved(EventName.CLAIMED, claimed.record)
                try:
                    held = await self._sign_and_record(claimed.lease, claimed.record, encoded, challenge, key)
                except LeaseLost:  # what was signed is forgotten: the answer is what the new holder makes of it
                    self._moved(EventName.LEASE_LOST, claimed.record)
                else:
                    return await self._deliver(held, ends)
            elif claimed.outcome is ClaimOutcome.KNOWN:
                return await self._follow(claimed.record, ends) if claim.forward else claimed.record
            if time.monotonic() >= ends:
                raise _in_progress()
            await asyncio.sleep(self.limits.poll_every.total_seconds())

    async def _was_signed(self, claim: Claim) -> bool:
        known = await self.store.get(claim.id)
        return known is not None and known.message_hash == claim.message_hash and not known.state.is_unsigned

    async def _sign_and_record(
        self,
        lease: Lease,
        record: ChallengeRecord,
        encoded: str,
        challenge: Challenge,
        key: SigningKey,
    ) -> Held:
        started = time.perf_counter()
        try:
            signature = await key.sign(challenge.message_to_sign())
        except SignerError as error:
            self._moved(EventName.RELEASED, await self.store.release(lease, error.code), key_uri=key.uri)
            raise
        submission = Submission.of(record.owner, encoded, signature, self.limits.signature_form)
        held = await self.store.record_signature(lease, submission)
        duration_ms = (time.perf_counter() - started) * 1000
        self._moved(EventName.SIGNED, held.record, key_uri=key.uri, duration_ms=duration_ms)
        return held

    async def _deliver(self, held: Held, ends: float) -> ChallengeRecord:
        """Go on until the record is settled or the work's time is over; recovery has it then."""
        record = held.record
        if record.state is ChallengeState.FORWARDING:
            with suppress(LeaseLost):
                record = await self.forward.attempt(held)
        return await self._follow(record, ends)

    async def _carry_on(self, claim: Claim) -> ChallengeRecord:
        """Go on with a challenge that is past its signing; the claim says whether this caller wants it delivered."""
        record = (await self._claim(claim)).record
        if not claim.forward:
            return record
        return await self._follow(record, time.monotonic() + self.limits.work_for.total_seconds())

    async def _claim(self, claim: Claim) -> Claimed:
        claimed = await self.store.claim(claim)
        if claimed.outcome is ClaimOutcome.NONCE_REUSED:
            raise Conflict(
                ErrorCode.NONCE_REUSED,
                "Another message with this nonce was claimed before; a nonce is signed once. Fetch a new challenge.",
                field="challenge",
            )
        if claimed.outcome is ClaimOutcome.BOUND_ELSEWHERE:
            raise Conflict(
                ErrorCode.CHALLENGE_BOUND_ELSEWHERE,
                "This challenge was claimed for another customerId; it can prove one customer only.",
                field="customerId",
            )
        return claimed

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

    def _is_held_off(self) -> bool:
        """Tell whether nothing will be delivered for so long that a caller is not kept waiting for it."""
        held_off_for = self.card_api.held_off_for()
        return held_off_for is not None and held_off_for >= _TOO_LONG_TO_WAIT

    def _moved(
        self,
        name: EventName,
        record: ChallengeRecord,
        *,
        key_uri: str | None = None,
        duration_ms: float | None = None,
    ) -> None:
        self.audit.write(
            AuditEvent(
                name=name,
                challenge_id=record.id,
                customer_id=record.customer_id,
                owner=str(record.owner),
                state=record.state,
                code=record.code,
                key_uri=key_uri,
                duration_ms=duration_ms,
            ),
        )

    def _refused(self, name: EventName, request: SignRequest, error: SignerError) -> None:
        self.audit.write(
            AuditEvent(name=name, customer_id=request.customer_id, owner=str(request.owner), code=error.code),
        )


def _answers_anew(known: ChallengeRecord) -> bool:
    """Tell whether a customer's newest record answers a request that names no challenge; else a new one is fetched."""
    state = known.state
    return state.is_proof or not (state.is_unsigned or state.is_final)


def _claim_of(known: ChallengeRecord, request: SignRequest) -> Claim:
    return Claim(
        id=known.id,
        message_hash=known.message_hash,
        customer_id=request.customer_id,
        owner=known.owner,
        forward=request.forward,
        issued_at=known.issued_at,
        expires_at=known.expires_at,
    )


def _in_progress() -> Unavailable:
    return Unavailable(
        ErrorCode.CHALLENGE_IN_PROGRESS,
        "The challenge is being worked on and this request's time is over; ask again for the same.",
        retry_after=1.0,
    )
