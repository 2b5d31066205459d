"""The card API: what it is asked, and what its answers mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from signer.domain.customer import CustomerIntent
from signer.domain.record import Submission


class DeliveryVerdict(Enum):
    """What the card API's answer to ``POST …/challenge/sign`` means."""

    ACCEPTED = auto()
    """204: the signature was verified."""
    ALREADY_SIGNED = auto()
    """409 in its first meaning: the challenge had been signed before."""
    CONFLICT_AMBIGUOUS = auto()
    """409 with a body that does not tell which: ask for the customer."""
    REFUSED = auto()
    """400: the signature, or the request, was not accepted; the challenge may have been replaced."""
    CUSTOMER_UNKNOWN = auto()
    """404."""
    IDEMPOTENCY_KEY_REFUSED = auto()
    """422: the Idempotency-Key was used with another payload."""
    CREDENTIALS_REFUSED = auto()
    """401 or 403, also with a fresh token."""
    NOT_PROCESSED = auto()
    """It was not taken up (no connection, 429, 409 in flight, breaker open): repeat with the same key."""
    UNKNOWN = auto()
    """It may have been processed (timeout, connection cut, 5xx, a senseless answer): repeat with the same key."""


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """One attempt's end.

    Attributes:
        verdict: what it means.
        status: the HTTP status, or ``None`` where no answer came.
        retry_after: what the API asked for, where it asked.
    """

    verdict: DeliveryVerdict
    status: int | None = None
    retry_after: timedelta | None = None


class CardApi(Protocol):
    """The card API. Reading is repeated inside, within ``timeout``; a delivery is one attempt: each needs its lease."""

    async def create_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> str:
        """Create the customer under the intent's Idempotency-Key, repeating it within ``timeout``; gives its id.

        Raises:
            Conflict: ``customer_exists``.
            MalformedRequest: ``request_malformed``: the card API refuses the account or the external id.
            Unavailable, UpstreamTimeout, BadUpstream: as ``fetch_challenge``; it may have been created all the same.
        """
        ...

    async def fetch_challenge(self, customer_id: str, *, timeout: timedelta) -> str:
        """Give the customer's present challenge, base64.

        Raises:
            NotFound: ``customer_unknown``.
            Unavailable: ``card_api_unavailable``, ``card_api_credentials_refused``.
            UpstreamTimeout: ``card_api_timeout``.
            BadUpstream: ``card_api_invalid_answer``.
        """
        ...

    async def customer_status(self, customer_id: str, *, timeout: timedelta) -> str:
        """Give the customer's ``status``; raises as ``fetch_challenge`` does."""
        ...

    async def submit(
        self,
        customer_id: str,
        submission: Submission,
        *,
        idempotency_key: str,
        timeout: timedelta,
    ) -> DeliveryResult:
        """POST the stored body once, under its key; a 401 is answered with one new token and one repetition inside.

        Never raises for what the API or the network did: that is what the verdict is for.
        """
        ...

    async def authenticate(self, *, timeout: timedelta) -> None:
        """Return where the card API itself answers now: where it gives a new token for our credentials.

        Raises as ``fetch_challenge`` does, but for ``NotFound``.
        """
        ...

    def suspended_for(self) -> timedelta | None:
        """Say for how long at least the API is not asked; ``None`` where it is.

        It is down, or wants it so, or the key that signs our requests to it is away.

        Meanwhile a reading raises ``card_api_unavailable`` and a delivery ends ``NOT_PROCESSED``, both at once.
        """
        ...

    async def check(self) -> str | None:
        """Return where a valid token is at hand or can be had; raises as ``fetch_challenge`` does.

        What the person on call should know all the same (not asked for now, a clock that is wrong) is returned.
        """
        ...
