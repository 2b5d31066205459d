"""Read from the card API what became of a delivery whose outcome is open.

Each read ends while enough of the lease is left to settle the record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from signer.application.ports import CardApi, LeasedRecord
from signer.domain.errors import ErrorCode, NotFound, SignerError, UpstreamTimeout
from signer.domain.lifecycle import CustomerStatus

_PROVEN: Final = frozenset(
    {CustomerStatus.SCREENING, CustomerStatus.VERIFYING, CustomerStatus.ACTIVE, CustomerStatus.INACTIVE}
)
"""A customer gets to these statuses only after its challenge was verified."""
_NOT_PROVEN: Final = CustomerStatus.INITIATING
"""The others (rejected, unknown words) do not say whether the challenge was verified."""


@dataclass(frozen=True, slots=True)
class CustomerReading:
    """What the card API says about a customer.

    Attributes:
        status: ``None`` if it could not be read.
        has_no_customer: whether the card API, and not a gateway in front of it, does not know the customer.
    """

    status: CustomerStatus | None = None
    has_no_customer: bool = False

    @property
    def is_proven(self) -> bool | None:
        """Whether the card API has the proof of ownership; ``None`` if that is not known."""
        if self.has_no_customer or self.status is _NOT_PROVEN:
            return False
        return True if self.status in _PROVEN else None

    def noted_in(self, leased: LeasedRecord) -> LeasedRecord:
        """Return the record with the status that was read, to be stored with its next move."""
        if self.status is None:
            return leased
        return replace(leased, record=leased.record._replace(upstream_status=self.status))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStatus:
    """Reads of the card API under a lease.

    Attributes:
        card_api: the card API.
        time_left: returns how long a call under this lease may take.
    """

    card_api: CardApi
    time_left: Callable[[LeasedRecord], timedelta]

    async def customer(self, leased: LeasedRecord) -> CustomerReading:
        """Read the customer's status."""
        try:
            status = await self._read(leased, self.card_api.customer_status)
            return CustomerReading(CustomerStatus(status.lower()))  # the card API's guide writes them in both cases
        except NotFound:
            return CustomerReading(has_no_customer=await self._responds(leased))
        except SignerError:
            return CustomerReading()

    async def current_challenge(self, leased: LeasedRecord) -> str | None:
        """Return the customer's current challenge, base64; ``None`` if it cannot be read."""
        try:
            return await self._read(leased, self.card_api.fetch_challenge)
        except SignerError:
            return None

    async def _responds(self, leased: LeasedRecord) -> bool:
        """Return whether the card API itself responds: a gateway that has lost it says 404, and issues no token."""
        try:
            await self.card_api.authenticate(timeout=self.time_left(leased))
        except SignerError:
            return False
        return True

    async def _read(self, leased: LeasedRecord, read: Callable[..., Awaitable[str]]) -> str:
        timeout = self.time_left(leased)
        if timeout <= timedelta(0):
            raise UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "No time was left under the lease to ask the card API.")
        return await read(leased.record.customer_id, timeout=timeout)
