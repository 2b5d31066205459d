"""What a caller asks for: which challenge it is, one piece of work for all who ask the same, an answer in time.

* What cannot be read is refused before anything is looked up, and nothing is spent before the policy has said yes.
* The same request again gives the same answer, also after the challenge's time, for the record remembers.
* A request that goes away leaves its work running; requests for the same work share it.
* A challenge that is past its time, or was replaced upstream, is exchanged for the card API's present one where the
  request allows it, at most twice; each one is read and judged in full.
* A caller gets an answer within its time: the record if a signature is in it, else ``challenge_in_progress``; at once
  where the card API is not asked for now, for then it is recovery that delivers.

How the one challenge is then signed, once, is ``sign_once``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from signer.application.admission import AdmissionGate
from signer.application.ports import (
    AuditEvent,
    Claim,
    EventName,
    KeyRing,
    SigningKey,
)
from signer.application.sign_once import PastItsTime, SignOnce, in_progress
from signer.application.single_flight import SingleFlight, StillRunning
from signer.domain.challenge import Challenge, decode_challenge
from signer.domain.errors import Conflict, ErrorCode, NotFound, SignerError
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord, challenge_id

_MOST_REFRESHES: Final = 2
_SHORTEST_LOOK: Final = timedelta(milliseconds=250)


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


class SignChallenge:
    """The use case."""

    def __init__(self, *, sign_once: SignOnce, keys: KeyRing, admission: AdmissionGate) -> None:
        """Take what signs the one challenge, with its ports; ``admission`` says whether work is taken."""
        self._sign_once = sign_once
        self._keys = keys
        self._admission = admission
        self._store = sign_once.store
        self._card_api = sign_once.card_api
        self._audit = sign_once.audit
        self._limits = sign_once.limits
        self._work = SingleFlight(self._answer, self._limits.most_at_once)

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
        self._admission.check()
        wait = max(within - self._limits.look_within, timedelta(0))
        try:
            return await self._work.join(request, within=wait)
        except StillRunning:
            pass
        try:
            async with asyncio.timeout(max(within - wait, _SHORTEST_LOOK).total_seconds()):
                return await self._answer_so_far(request)
        except TimeoutError:  # the store is slow: what is not known in time is not told
            raise in_progress() from None

    async def drain(self, within: timedelta) -> int:
        """Let the work that is under way end; gives how many pieces had to be handed back."""
        return await self._work.drain(within)

    async def _answer_so_far(self, request: SignRequest) -> ChallengeRecord:
        """Answer a caller whose time is over while the work goes on."""
        if request.challenge is None:
            record = await self._store.find(request.customer_id, request.owner)
            if record is not None and not _answers_anew(record):  # an earlier challenge's end is no answer to this one
                record = None
        else:
            challenge = self._decode(request.challenge)
            record = await self._store.get(challenge_id(request.owner, challenge.domain, challenge.nonce))
            if record is not None and record.message_hash != challenge.message_hash:
                record = None
        if record is not None and request.refresh and record.state is ChallengeState.SUPERSEDED:
            record = None  # the work goes on with the one that took its place
        if record is None or record.customer_id != request.customer_id or record.signature is None:
            raise in_progress()
        return record

    async def _answer(self, request: SignRequest) -> ChallengeRecord:
        try:
            return await self._find_or_sign(request)
        except Conflict as error:
            self._refused(EventName.CONFLICTED, request, error)
            raise
        except SignerError as error:
            self._refused(EventName.REFUSED, request, error)
            raise

    async def _find_or_sign(self, request: SignRequest) -> ChallengeRecord:
        encoded = request.challenge
        if encoded is not None:
            self._decode(encoded)
        key = self._keys.find(request.owner.address)
        if key is None:
            raise NotFound(
                ErrorCode.OWNER_UNKNOWN,
                "No key of this service belongs to ownerId; GET /v1/keys lists the owners it can sign for.",
                field="ownerId",
            )
        if encoded is None:
            known = await self._store.find(request.customer_id, request.owner)
            if known is not None and _answers_anew(known):
                record = await self._sign_once.carry_on(_claim_of_known(known, request))
                if not (request.refresh and record.state is ChallengeState.SUPERSEDED):
                    return record
            encoded = await self._fetch(request)
        return await self._sign_or_refresh(request, encoded, key)

    async def _sign_or_refresh(self, request: SignRequest, encoded: str, key: SigningKey) -> ChallengeRecord:
        """Sign ``encoded``; where it is past its time, or replaced upstream, go on with what the card API has now."""
        for _ in range(_MOST_REFRESHES if request.refresh else 0):
            with suppress(PastItsTime):
                record = await self._sign(request, encoded, key)
                if record.state is not ChallengeState.SUPERSEDED:
                    return record
            encoded = await self._fetch(request)
        try:
            return await self._sign(request, encoded, key)
        except PastItsTime as past:
            raise past.refusal from None

    async def _sign(self, request: SignRequest, encoded: str, key: SigningKey) -> ChallengeRecord:
        challenge = self._decode(encoded)
        claim = Claim(
            id=challenge_id(request.owner, challenge.domain, challenge.nonce),
            message_hash=challenge.message_hash,
            customer_id=request.customer_id,
            owner=request.owner,
            forward=request.forward,
            issued_at=challenge.issued_at,
            expires_at=challenge.deadline(self._sign_once.policy.max_age),
        )
        return await self._sign_once(encoded, challenge, claim, key)

    def _decode(self, encoded: str) -> Challenge:
        return decode_challenge(encoded, max_base64=self._limits.max_base64)

    async def _fetch(self, request: SignRequest) -> str:
        return await self._card_api.fetch_challenge(request.customer_id, timeout=self._limits.fetch_timeout)

    def _refused(self, name: EventName, request: SignRequest, error: SignerError) -> None:
        self._audit.write(
            AuditEvent(name=name, customer_id=request.customer_id, owner=str(request.owner), code=error.code),
        )


def _answers_anew(known: ChallengeRecord) -> bool:
    """Tell whether a customer's newest record answers a request that names no challenge; else a new one is fetched."""
    state = known.state
    return state.is_proof or not (state.is_unsigned or state.is_final)


def _claim_of_known(known: ChallengeRecord, request: SignRequest) -> Claim:
    return Claim(
        id=known.id,
        message_hash=known.message_hash,
        customer_id=request.customer_id,
        owner=known.owner,
        forward=request.forward,
        issued_at=known.issued_at,
        expires_at=known.expires_at,
    )
