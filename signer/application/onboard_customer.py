"""Create a customer at the card API, then sign and deliver its challenge.

* The intent is stored before the POST, and the customer's id right after it. After a crash in between, the same request
  repeats the POST under the same Idempotency-Key: no second customer is created and the id is not lost.
* If the id is known, the customer is not created again; the request continues with the known one.
* If something fails after the id is known, the response still has the id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from signer.application.admission import AdmissionGate
from signer.application.ports import AuditEvent, AuditLog, CardApi, CustomerIntents, EventName, KeyRing
from signer.application.sign_request import HandleSignRequest, SignRequest, require_key
from signer.application.single_flight import SingleFlight, StillRunning
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from signer.domain.record import ChallengeRecord


@dataclass(frozen=True, slots=True)
class OnboardingResult:
    """The result of an onboarding.

    Attributes:
        customer_id: the card API's id of the customer.
        record: of its challenge; ``None`` after an error.
        error: why the challenge was not signed; ``None`` if it was.
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
        keys: KeyRing,
        intents: CustomerIntents,
        card_api: CardApi,
        sign: HandleSignRequest,
        audit: AuditLog,
        create_timeout: timedelta,
        max_concurrent: int = 1000,
    ) -> None:
        self._admission = admission
        self._keys = keys
        self._intents = intents
        self._card_api = card_api
        self._sign = sign
        self._audit = audit
        self._create_timeout = create_timeout
        self._single_flight = SingleFlight(self._create, max_concurrent)

    async def __call__(self, intent: CustomerIntent, *, within: timedelta) -> OnboardingResult:
        """Create the customer if it does not exist yet, then sign and deliver its current challenge.

        Raises:
            NotFound: ``owner_unknown``; nothing was sent.
            Conflict: ``customer_exists``: the card API has this customer, and this service does not have its id.
            Unavailable, UpstreamTimeout, BadUpstream: the customer may have been created; the same request again finds
                or creates it, once.
        """
        self._admission.check()
        require_key(self._keys, intent.owner)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within.total_seconds()
        try:
            customer_id = await self._single_flight.run(intent, within=within)
        except StillRunning:
            raise Unavailable(
                ErrorCode.CHALLENGE_IN_PROGRESS,
                "The customer is still being created. Send the same request again.",
            ) from None
        request = SignRequest(customer_id, intent.owner, challenge=None, forward=True, refresh=True)
        try:
            record = await self._sign(request, within=timedelta(seconds=max(deadline - loop.time(), 0.0)))
        except SignerError as error:
            return OnboardingResult(customer_id, None, error)
        return OnboardingResult(customer_id, record, None)

    async def drain(self, within: timedelta) -> int:
        """Wait for running creations; return how many were cancelled. The same request continues them."""
        return await self._single_flight.drain(within)

    async def _create(self, intent: CustomerIntent) -> str:
        customer_id = await self._intents.begin(intent)
        if customer_id is not None:
            return customer_id
        customer_id = await self._card_api.create_customer(intent, timeout=self._create_timeout)
        self._audit.write(
            AuditEvent(
                name=EventName.CUSTOMER_CREATED,
                customer_id=customer_id,
                owner=str(intent.owner),
                idempotency_key=intent.idempotency_key,
            ),
        )
        await self._intents.complete(intent, customer_id)
        return customer_id
