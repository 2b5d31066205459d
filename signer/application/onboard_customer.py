"""Create a customer at the card API and have its challenge signed and delivered.

* The intent is stored before the POST, and the customer's id right after it: a crash in between costs neither a second
  customer nor the id, for the same request repeats the POST under the same Idempotency-Key.
* An intent whose id is known is never POSTed again: the same request goes on with the customer that is there.
* Whatever fails once the id is known, the answer carries it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from signer.application.admission import AdmissionGate
from signer.application.ports import AuditEvent, AuditLog, CardApi, CustomerIntents, EventName, KeyRing
from signer.application.sign_challenge import SignChallenge, SignRequest
from signer.application.single_flight import SingleFlight, StillRunning
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, NotFound, SignerError, Unavailable
from signer.domain.record import ChallengeRecord


@dataclass(frozen=True, slots=True)
class OnboardingResult:
    """What became of an onboarding.

    Attributes:
        customer_id: the card API's id of the customer.
        record: of its challenge, where there is one.
        error: what kept the challenge from being signed, where something did.
    """

    customer_id: str
    record: ChallengeRecord | None
    error: SignerError | None


class OnboardCustomer:
    """The use case."""

    def __init__(
        self,
        *,
        intents: CustomerIntents,
        card_api: CardApi,
        keys: KeyRing,
        sign: SignChallenge,
        audit: AuditLog,
        admission: AdmissionGate,
        create_timeout: timedelta = timedelta(seconds=8),
        most_at_once: int = 1000,
    ) -> None:
        """Take the ports, and the use case that goes on once there is a customer."""
        self._intents = intents
        self._card_api = card_api
        self._keys = keys
        self._sign = sign
        self._audit = audit
        self._admission = admission
        self._create_timeout = create_timeout
        self._work = SingleFlight(self._create, most_at_once)

    async def __call__(self, intent: CustomerIntent, *, within: timedelta) -> OnboardingResult:
        """Create the customer where it is not there yet, then sign and deliver its present challenge.

        Raises:
            NotFound: ``owner_unknown``; nothing was sent.
            Conflict: ``customer_exists``: the card API has this customer, and its id is known to nobody here.
            Unavailable, UpstreamTimeout, BadUpstream: the customer may or may not have been created; ask again for the
                same, and it will be found or created, once.
        """
        self._admission.check()
        if self._keys.find(intent.owner.address) is None:
            raise NotFound(
                ErrorCode.OWNER_UNKNOWN,
                "No key of this service belongs to ownerId; GET /v1/keys lists the owners it can sign for.",
                field="ownerId",
            )
        loop = asyncio.get_running_loop()
        ends = loop.time() + within.total_seconds()
        customer_id = await self._customer_of(intent, within)
        request = SignRequest(customer_id, intent.owner, challenge=None, forward=True, refresh=True)
        try:
            record = await self._sign(request, within=timedelta(seconds=max(ends - loop.time(), 0.0)))
        except SignerError as error:
            return OnboardingResult(customer_id, None, error)
        return OnboardingResult(customer_id, record, None)

    async def drain(self, within: timedelta) -> int:
        """Let the creations that are under way end; gives how many were stopped: the same request goes on with them."""
        return await self._work.drain(within)

    async def _customer_of(self, intent: CustomerIntent, within: timedelta) -> str:
        """Give the customer's id; the creation goes on where its caller goes away, and is shared by those who ask."""
        try:
            return await self._work.join(intent, within=within)
        except StillRunning:
            raise Unavailable(
                ErrorCode.CHALLENGE_IN_PROGRESS,
                "The customer is being created and took longer than this request may; ask again for the same.",
            ) from None

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
