"""Create a customer at the card API, then sign and deliver its challenge.

* What can be refused without the card API is refused first, so that no customer is created whose challenge this service
  cannot sign.
* The intent is stored before the POST, and the customer's id right after it. After a crash in between, the same request
  repeats the POST under the same Idempotency-Key: no second customer is created and the id is not lost.
* If the card API has the customer already (409), its id is looked up in the list of customers, once for each request.
* If the id is known from an earlier request, the customer is not created again.
* Then the customer's challenge is signed: the one in the response to the creation, else the current one.
* If something fails after the id is known, the response still has the id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from signer.application.admission import AdmissionGate
from signer.application.handle_sign_request import HandleSignRequest
from signer.application.ports import (
    AuditEvent,
    AuditFields,
    AuditLog,
    CardApi,
    CustomerIntents,
    EventName,
    KeyRing,
    NewCustomer,
)
from signer.application.refusals import require_key
from signer.application.sign_request import SignRequest
from signer.application.single_flight import SingleFlight, StillRunning
from signer.domain.customer import CustomerIntent
from signer.domain.errors import Conflict, ErrorCode, SignerError, Unavailable
from signer.domain.ethereum import self_test_message
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord

_MAX_CONCURRENT: Final = 1000
_RETRY_LOOKUP_AFTER: Final = 5.0
"""Seconds. The list of customers may show a new customer late."""


@dataclass(frozen=True, slots=True)
class OnboardingResult:
    """The result of an onboarding.

    Attributes:
        customer_id: the card API's id of the customer.
        record: of its challenge; ``None`` if signing failed.
        error: why the challenge was not signed, or ended without proof; ``None`` if it is proven or being delivered.
    """

    customer_id: str
    record: ChallengeRecord | None
    error: SignerError | None


class OnboardCustomer:
    """Creates customers, one task for equal requests."""

    def __init__(
        self,
        *,
        admission: AdmissionGate,
        policy: SigningPolicy,
        keys: KeyRing,
        intents: CustomerIntents,
        card_api: CardApi,
        sign: HandleSignRequest,
        audit: AuditLog,
        card_api_timeout: timedelta,
    ) -> None:
        self._admission = admission
        self._policy = policy
        self._keys = keys
        self._intents = intents
        self._card_api = card_api
        self._sign = sign
        self._audit = audit
        self._card_api_timeout = card_api_timeout
        self._single_flight = SingleFlight(self._create, _MAX_CONCURRENT)

    async def __call__(self, intent: CustomerIntent, *, within: timedelta) -> OnboardingResult:
        """Create the customer if it does not exist yet, then sign and deliver its current challenge.

        Raises:
            NotFound, RefusedByPolicy: ``owner_unknown``, ``chain_not_allowed``; nothing was sent.
            Unavailable: what ``AdmissionGate.check`` and ``SingleFlight.run`` raise; ``challenge_in_progress``: the
                creation takes longer than ``within``; ``key_backend_unavailable``, ``audit_unavailable``: nothing was
                sent; ``customer_lookup_failed``: the card API has this customer, and its id could not be found.
            Unavailable, UpstreamTimeout, BadUpstream: with any other code, the customer may have been created; the same
                request again finds or creates it, once.
        """
        self._admission.check()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within.total_seconds()
        try:
            customer = await self._single_flight.run(intent, within=within)
        except StillRunning:
            raise Unavailable(
                ErrorCode.CHALLENGE_IN_PROGRESS,
                "The customer is still being created. Send the same request again.",
            ) from None
        request = SignRequest(
            customer.id, intent.owner, None, forward=True, refresh=True, is_new=True, issued=customer.challenge
        )
        try:
            record = await self._sign(request, within=timedelta(seconds=max(deadline - loop.time(), 0.0)))
        except SignerError as error:
            return OnboardingResult(customer.id, None, error)
        is_proven_or_open = record.state.is_proof or not record.state.is_final
        return OnboardingResult(customer.id, record, None if is_proven_or_open else _not_proven(record))

    async def drain(self, within: timedelta) -> int:
        """Wait for running creations; return how many were cancelled. The same request continues them."""
        return await self._single_flight.drain(within)

    async def _create(self, intent: CustomerIntent) -> NewCustomer:
        self._policy.check_owner(intent.owner)
        key = require_key(self._keys, intent.owner)
        known = await self._intents.begin(intent)
        if known is not None:
            return NewCustomer(known, challenge=None)
        self._audit.check()
        await key.sign(self_test_message())  # before the POST: a key that cannot sign must leave no customer behind
        customer = await self._card_api.create_customer(intent, timeout=self._card_api_timeout)
        event = EventName.CUSTOMER_CREATED
        if customer is None:
            customer = NewCustomer(await self._find(intent), challenge=None)
            event = EventName.CUSTOMER_FOUND
        self._log(event, intent, customer.id)
        await self._intents.complete(intent, customer.id)
        return customer

    async def _find(self, intent: CustomerIntent) -> str:
        try:
            return await self._card_api.find_customer(intent, timeout=self._card_api_timeout)
        except SignerError as error:
            self._log(EventName.CUSTOMER_LOOKUP_FAILED, intent, None, error.code)
            raise Unavailable(
                ErrorCode.CUSTOMER_LOOKUP_FAILED,
                f"The card API has this customer already, and its id could not be found. {error.detail} Send the same "
                "request again. If you know the id, call POST /v1/customers/{customerId}/challenge/sign.",
                retry_after=error.retry_after if isinstance(error, Unavailable) else _RETRY_LOOKUP_AFTER,
            ) from error

    def _log(self, name: EventName, intent: CustomerIntent, customer_id: str | None, code: str | None = None) -> None:
        key = intent.idempotency_key
        fields: AuditFields = {"customer_id": customer_id, "owner": str(intent.owner), "code": code}
        self._audit.write(AuditEvent(name, {**fields, "idempotency_key": key}))


def _not_proven(record: ChallengeRecord) -> Conflict:
    return Conflict(
        ErrorCode.CUSTOMER_NOT_PROVEN,
        f"The customer exists and its challenge ended without proof ({record.state}): see 'record'. Send the same "
        "request again, or POST /v1/customers/{customerId}/challenge/sign, to sign its next challenge.",
    )
