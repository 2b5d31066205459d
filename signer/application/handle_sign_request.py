"""A caller's request to sign: admission, one shared task for equal requests, and a response in time.

* Equal requests share one task (``single_flight``), which goes on if a caller disconnects.
* A caller whose time is over gets the record if it has a signature, else ``challenge_in_progress``.
* The same request again returns the same record, also after the challenge has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from signer.application.admission import AdmissionGate
from signer.application.ports import AuditEvent, AuditFields, AuditLog, ChallengeStore, EventName
from signer.application.refusals import in_progress
from signer.application.sign_request import SignRequest, can_reuse
from signer.application.single_flight import SingleFlight, StillRunning
from signer.domain.challenge import decode_challenge
from signer.domain.errors import ChallengeRefused, Conflict, SignerError
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord, challenge_id

_MIN_LOOKUP: Final = timedelta(milliseconds=250)


class HandleSignRequest:
    """The use case: a caller's request, with its time limit."""

    def __init__(
        self,
        *,
        admission: AdmissionGate,
        sign: Callable[[SignRequest], Awaitable[ChallengeRecord]],
        store: ChallengeStore,
        audit: AuditLog,
        lookup_reserve: timedelta,
        max_base64: int,
        max_concurrent: int = 1000,
    ) -> None:
        """Create the use case.

        Args:
            admission: whether work is accepted.
            sign: signs and delivers one challenge (``SignChallenge``).
            store: the records.
            audit: where refusals are logged.
            lookup_reserve: how much of a caller's time is kept for reading the record if the work is not done by then.
            max_base64: the longest challenge, in characters.
            max_concurrent: how many different requests are worked on at the same time; more are rejected.
        """
        self._admission = admission
        self._sign = sign
        self._store = store
        self._audit = audit
        self._lookup_reserve = lookup_reserve
        self._max_base64 = max_base64
        self._single_flight = SingleFlight(self._sign_and_log_refusal, max_concurrent)

    async def __call__(self, request: SignRequest, *, within: timedelta) -> ChallengeRecord:
        """Sign the challenge and, if the request says so, deliver the signature.

        Args:
            request: the request.
            within: how long the caller waits.

        Returns:
            The record: done, or with its signature still to be delivered.

        Raises:
            MalformedChallenge, RefusedByPolicy, NotFound, Conflict: this request claimed no nonce for the challenge
                that the error is about, and nothing was signed.
            ChallengeRefused: the same, for a challenge that was fetched and is for this owner.
            Unavailable: ``challenge_in_progress`` if the time was too short; else which part is down, or that this
                process accepts no work. Retry.
            BadUpstream: the card API's challenge could not be fetched.
        """
        self._admission.check()
        wait = max(within - self._lookup_reserve, timedelta(0))
        with suppress(StillRunning):
            return await self._single_flight.run(request, within=wait)
        try:
            async with asyncio.timeout(max(within - wait, _MIN_LOOKUP).total_seconds()):
                return await self._signed_record(request)
        except TimeoutError:
            raise in_progress() from None

    async def drain(self, within: timedelta) -> int:
        """Wait for the running work; return how many pieces of it had to be handed back."""
        return await self._single_flight.drain(within)

    async def _signed_record(self, request: SignRequest) -> ChallengeRecord:
        """Return the record if it is signed, after the caller's time is over; else raise ``challenge_in_progress``."""
        if request.challenge is None:
            record = await self._store.find(request.customer_id, request.owner)
            if record is not None and not can_reuse(record):  # it belongs to an earlier challenge
                record = None
        else:
            challenge = decode_challenge(request.challenge, max_base64=self._max_base64)
            record = await self._store.get(challenge_id(request.owner, challenge.domain, challenge.nonce))
            if record is not None and record.message_hash != challenge.message_hash:
                record = None
        if record is not None and request.refresh and record.state is ChallengeState.SUPERSEDED:
            record = None  # the work goes on with the challenge that replaced it
        if record is None or record.customer_id != request.customer_id or record.signature is None:
            raise in_progress()
        return record

    async def _sign_and_log_refusal(self, request: SignRequest) -> ChallengeRecord:
        try:
            return await self._sign(request)
        except SignerError as error:
            name, code = EventName.REFUSED, error.code
            if isinstance(error, ChallengeRefused):
                name, code = EventName.UPSTREAM_REFUSED, error.reason
            elif isinstance(error, Conflict):
                name = EventName.CONFLICTED
            fields: AuditFields = {"customer_id": request.customer_id, "owner": str(request.owner), "code": code}
            self._audit.write(AuditEvent(name, fields))
            raise
