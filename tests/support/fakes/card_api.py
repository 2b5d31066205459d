"""The port ``CardApi`` in memory, with the behaviour of the card API's contract.

It verifies signatures, stores the response of each Idempotency-Key and accepts a challenge once. A test can make calls
fail or wait, or lose their responses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from signer.application.ports import DeliveryResult, DeliveryVerdict, NewCustomer
from signer.domain.challenge import decode_challenge
from signer.domain.customer import CustomerIntent
from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError
from signer.domain.record import Submission
from tests.support.fakes.keys import FakeVerifier

INITIATING = "initiating"
ACTIVE = "active"


@dataclass(slots=True)
class FakeCustomer:
    """One customer: its current challenge and its status."""

    challenge: str
    status: str = INITIATING


class FakeCardApi:
    """The card API in memory.

    Attributes:
        customers: by id.
        failures: raised by the next reads (challenge, status, check), one each.
        verdicts: results of the next deliveries, one each; these are not processed.
        lost_responses: how many of the next deliveries are processed and end as ``UNKNOWN``.
        open: while it is not set, deliveries wait.
        reads_open: while it is not set, reads wait.
        read_count: the number of reads that have arrived.
        new_customers_read: the number of challenges that were fetched for a new customer.
        customer_ids: the id that a new customer gets, by its external id.
        first_challenge: the challenge that a new customer gets, in the response to its creation.
        already_exists: how many of the next creations find that the customer exists already.
        created: the Idempotency-Keys of all creations that arrived.
        lookups: the external ids that were looked up.
        submitted: every (customer id, body, Idempotency-Key) that arrived, in order.
        timeouts: the timeouts of those deliveries.
        max_in_flight: the greatest number of concurrent deliveries.
        suspension: what ``suspended_for`` returns.
        gateway_returns_404: whether a gateway in front of it returns 404 for everything.
    """

    def __init__(self) -> None:
        self.customers: dict[str, FakeCustomer] = {}
        self.failures: deque[SignerError] = deque()
        self.verdicts: deque[DeliveryResult] = deque()
        self.lost_responses = 0
        self.open = asyncio.Event()
        self.open.set()
        self.reads_open = asyncio.Event()
        self.reads_open.set()
        self.read_count = 0
        self.new_customers_read = 0
        self.submitted: list[tuple[str, bytes, str]] = []
        self.timeouts: list[timedelta] = []
        self.max_in_flight = 0
        self.suspension: timedelta | None = None
        self.gateway_returns_404 = False
        self._in_flight = 0
        self.customer_ids: dict[str, str] = {}
        self.first_challenge: str | None = None
        self.already_exists = 0
        self.created: list[str] = []
        self.lookups: list[str] = []
        self._stored: dict[str, tuple[bytes, DeliveryResult]] = {}

    def issue(self, customer_id: str, challenge: str) -> None:
        """Set the challenge (base64) of a customer, and create the customer if it does not exist."""
        self.customers[customer_id] = FakeCustomer(challenge)

    async def fetch_challenge(self, customer_id: str, *, timeout: timedelta, is_new: bool = False) -> str:
        """Return the customer's current challenge."""
        self.new_customers_read += is_new
        return (await self._customer(customer_id)).challenge

    async def customer_status(self, customer_id: str, *, timeout: timedelta) -> str:
        """Return the customer's status."""
        return (await self._customer(customer_id)).status

    def suspended_for(self) -> timedelta | None:
        """Return ``suspension``."""
        return self.suspension

    async def check(self) -> None:
        """Raise the next of ``failures``."""
        self._fail()

    async def authenticate(self, *, timeout: timedelta) -> None:
        """Raise if the gateway returns 404."""
        if self.gateway_returns_404:
            raise BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "The card API returned no token.")

    async def submit(self, customer_id: str, submission: Submission, *, timeout: timedelta) -> DeliveryResult:
        """Process a delivery, or return the next of ``verdicts``."""
        idempotency_key = submission.idempotency_key
        self.submitted.append((customer_id, submission.body, idempotency_key))
        self.timeouts.append(timeout)
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await asyncio.sleep(0)
                await self.open.wait()  # a test may replace it for later deliveries
        except TimeoutError:
            return DeliveryResult(DeliveryVerdict.UNKNOWN)
        finally:
            self._in_flight -= 1
        if self.gateway_returns_404:
            return DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404)
        if self.verdicts:
            return self.verdicts.popleft()
        body, result = self._stored.get(idempotency_key, (submission.body, None))
        if body != submission.body:
            return DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422)
        if result is None:
            result = self._verify(customer_id, submission)
            self._stored[idempotency_key] = (submission.body, result)
        if self.lost_responses:
            self.lost_responses -= 1
            return DeliveryResult(DeliveryVerdict.UNKNOWN)
        return result

    async def create_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> NewCustomer | None:
        """Create the customer with its id from ``customer_ids``; the same key gets the same result again."""
        self.created.append(intent.idempotency_key)
        await self.reads_open.wait()
        customer_id = self.customer_ids[intent.external_id]
        if self.created.count(intent.idempotency_key) == 1:
            self.customers.setdefault(customer_id, FakeCustomer(self.first_challenge or ""))
        if self.already_exists:
            self.already_exists -= 1
            return None
        self._fail()
        return NewCustomer(customer_id, self.first_challenge)

    async def find_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> str:
        """Return the customer's id from ``customer_ids``."""
        self.lookups.append(intent.external_id)
        self._fail()
        return self.customer_ids[intent.external_id]

    def _verify(self, customer_id: str, submission: Submission) -> DeliveryResult:
        customer = self.customers.get(customer_id)
        if customer is None:
            return DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404)
        if customer.status != INITIATING:
            return DeliveryResult(DeliveryVerdict.ALREADY_SIGNED, 409)
        encoded, signature = submission.parts()
        challenge = decode_challenge(customer.challenge)
        signer = FakeVerifier().signer_of(challenge.message_to_sign(), signature)
        if encoded != customer.challenge or signer != challenge.address:
            return DeliveryResult(DeliveryVerdict.REFUSED, 400)
        customer.status = ACTIVE
        return DeliveryResult(DeliveryVerdict.ACCEPTED, 204)

    async def _customer(self, customer_id: str) -> FakeCustomer:
        self.read_count += 1
        await self.reads_open.wait()
        self._fail()
        customer = self.customers.get(customer_id)
        if customer is None or self.gateway_returns_404:
            raise NotFound(ErrorCode.CUSTOMER_UNKNOWN, "The card API has no customer with this id.", field="customerId")
        return customer

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.popleft()
