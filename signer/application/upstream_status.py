"""Read from the card API what became of a delivery whose outcome is open.

Each read ends while enough of the lease is left to settle the record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from signer.application.ports import CardApi, LeasedRecord
from signer.domain.errors import ErrorCode, NotFound, SignerError, UpstreamTimeout

_PROVEN_STATUSES: Final = frozenset({"screening", "verifying", "active", "inactive"})
"""A customer gets to these statuses only after its challenge was verified."""
_NOT_PROVEN_STATUS: Final = "initiating"
"""All other statuses (rejected, failed, unknown words) do not say whether the challenge was verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStatus:
    """Reads of the card API under a lease.

    Attributes:
        card_api: the card API.
        time_left: returns how long a call under this lease may take.
    """

    card_api: CardApi
    time_left: Callable[[LeasedRecord], timedelta]

    async def is_proven(self, leased: LeasedRecord) -> bool | None:
        """Return whether the card API has the proof of ownership; ``None`` if it cannot be read."""
        try:
            status = await self._customer_status(leased)
        except NotFound:
            return False
        except SignerError:
            return None
        word = status.lower()  # the card API's guide writes them in both cases
        if word in _PROVEN_STATUSES:
            return True
        return False if word == _NOT_PROVEN_STATUS else None

    async def is_customer_unknown(self, leased: LeasedRecord) -> bool:
        """Return whether the card API, and not a gateway in front of it, does not know the customer."""
        try:
            await self._customer_status(leased)
        except NotFound:
            return True
        except SignerError:
            return False
        return False

    async def current_challenge(self, leased: LeasedRecord) -> str | None:
        """Return the customer's current challenge, base64; ``None`` if it cannot be read."""
        try:
            return await self._read(leased, self.card_api.fetch_challenge)
        except SignerError:
            return None

    async def _customer_status(self, leased: LeasedRecord) -> str:
        try:
            return await self._read(leased, self.card_api.customer_status)
        except NotFound:
            # A gateway that has lost the card API responds 404 to everything. A new token proves that it is there.
            await self.card_api.authenticate(timeout=self.time_left(leased))
            raise

    async def _read(self, leased: LeasedRecord, read: Callable[..., Awaitable[str]]) -> str:
        timeout = self.time_left(leased)
        if timeout <= timedelta(0):
            raise UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "No time was left under the lease to ask the card API.")
        return await read(leased.record.customer_id, timeout=timeout)
