"""The port to the customers that are to be created."""

from __future__ import annotations

from typing import Protocol

from signer.domain.customer import CustomerIntent


class CustomerIntents(Protocol):
    """The customers that are to be created.

    Both methods raise ``Unavailable`` if the store cannot be reached, and ``RecordDamaged`` if the intent is damaged.
    """

    async def begin(self, intent: CustomerIntent) -> str | None:
        """Store the intent if it is new; return the customer's id if it is known."""
        ...

    async def complete(self, intent: CustomerIntent, customer_id: str) -> None:
        """Store the id that the card API returned; a second one for the same intent changes nothing."""
        ...
