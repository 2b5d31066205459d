"""The port ``CardApi``: customers with one present challenge each, true to what the card API's contract says of them.

Signatures are verified, Idempotency-Keys remembered, a challenge is accepted once. A test can have calls fail, be held
up, or be processed and their answer lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.challenge import decode_challenge
from signer.domain.customer import CustomerIntent
from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError
from signer.domain.record import Submission
from tests.support.fakes.keys import FakeVerifier

INITIATING = "initiating"
ACTIVE = "active"


@dataclass(slots=True)
class FakeCustomer:
    """One customer: its present challenge, and where it stands."""

    challenge: str
    status: str = INITIATING


class FakeCardApi:
    """The card API in memory.

    Attributes:
        customers: by id.
        failures: raised by the next readings (challenge, status, check), one each.
        verdicts: what the next deliveries end with, one each, without being processed.
        lost_answers: how many of the next deliveries are processed and end as ``UNKNOWN``.
        open: while it is not set, deliveries wait.
        readable: while it is not set, readings wait.
        readings: how many have arrived.
        announced: the id that the next customer of an external id gets.
        first_challenge: the challenge that a new customer gets.
        created: the Idempotency-Key of every creation that arrived.
        submitted: every (customer id, body, Idempotency-Key) that arrived, in order.
        timeouts: of those deliveries.
        at_once: how many deliveries were ever under way at one time.
        hold: for how long nobody asks, as far as ``suspended_for`` says.
        is_lost: whether a gateway in front of it answers 404 to everything.
    """

    def __init__(self) -> None:
        self.customers: dict[str, FakeCustomer] = {}
        self.failures: deque[SignerError] = deque()
        self.verdicts: deque[DeliveryResult] = deque()
        self.lost_answers = 0
        self.open = asyncio.Event()
        self.open.set()
        self.readable = asyncio.Event()
        self.readable.set()
        self.readings = 0
        self.submitted: list[tuple[str, bytes, str]] = []
        self.timeouts: list[timedelta] = []
        self.at_once = 0
        self.hold: timedelta | None = None
        self.is_lost = False
        self._under_way = 0
        self.announced: dict[str, str] = {}
        self.first_challenge = ""
        self.created: list[str] = []
        self._answers: dict[str, tuple[bytes, DeliveryResult]] = {}

    def issue(self, customer_id: str, challenge: str) -> None:
        """Give a customer, new or known, a new challenge (base64)."""
        self.customers[customer_id] = FakeCustomer(challenge)

    async def fetch_challenge(self, customer_id: str, *, timeout: timedelta) -> str:
        """Give the present challenge."""
        return (await self._customer(customer_id)).challenge

    async def customer_status(self, customer_id: str, *, timeout: timedelta) -> str:
        """Give the status."""
        return (await self._customer(customer_id)).status

    def suspended_for(self) -> timedelta | None:
        """Say what the test has set."""
        return self.hold

    async def check(self) -> None:
        """Return, unless a failure is set."""
        self._fail()

    async def authenticate(self, *, timeout: timedelta) -> None:
        """Return, unless a gateway has lost the card API."""
        if self.is_lost:
            raise BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "The card API gave no token.")

    async def submit(
        self,
        customer_id: str,
        submission: Submission,
        *,
        idempotency_key: str,
        timeout: timedelta,
    ) -> DeliveryResult:
        """Take a signature in, or do what the test has set."""
        self.submitted.append((customer_id, submission.body, idempotency_key))
        self.timeouts.append(timeout)
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await asyncio.sleep(0)
                await self.open.wait()  # a test may put another door in its place for those who come later
        except TimeoutError:
            return DeliveryResult(DeliveryVerdict.UNKNOWN)
        finally:
            self._under_way -= 1
        if self.is_lost:
            return DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404)
        if self.verdicts:
            return self.verdicts.popleft()
        body, answer = self._answers.get(idempotency_key, (submission.body, None))
        if body != submission.body:
            return DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422)
        if answer is None:
            answer = self._judge(customer_id, submission)
            self._answers[idempotency_key] = (submission.body, answer)
        if self.lost_answers:
            self.lost_answers -= 1
            return DeliveryResult(DeliveryVerdict.UNKNOWN)
        return answer

    async def create_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> str:
        """Create the customer that a test has ``announced``, once: the same key gets the same answer again."""
        self.created.append(intent.idempotency_key)
        await self.readable.wait()
        customer_id = self.announced[intent.external_id]
        if self.created.count(intent.idempotency_key) == 1:
            self.issue(customer_id, self.first_challenge)
        self._fail()
        return customer_id

    def _judge(self, customer_id: str, submission: Submission) -> DeliveryResult:
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
        self.readings += 1
        await self.readable.wait()
        self._fail()
        customer = self.customers.get(customer_id)
        if customer is None or self.is_lost:
            raise NotFound(ErrorCode.CUSTOMER_UNKNOWN, "The card API knows no such customer.", field="customerId")
        return customer

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.popleft()
