"""The port ``CustomerIntents`` in memory."""

from __future__ import annotations

from collections import deque

from signer.domain.customer import CustomerIntent
from signer.domain.errors import SignerError


class FakeCustomerIntents:
    """The intents in memory.

    Attributes:
        known: the customer's id, or ``None``, by the intent's id.
        failures: raised by the next calls, one each.
    """

    def __init__(self) -> None:
        self.known: dict[str, str | None] = {}
        self.failures: deque[SignerError | None] = deque()

    async def begin(self, intent: CustomerIntent) -> str | None:
        """See the port."""
        self._fail()
        return self.known.setdefault(intent.id, None)

    async def complete(self, intent: CustomerIntent, customer_id: str) -> None:
        """See the port."""
        self._fail()
        self.known[intent.id] = self.known.get(intent.id) or customer_id

    def _fail(self) -> None:
        failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            raise failure
