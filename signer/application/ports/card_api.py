"""The card API: its operations, and what the result of a delivery means."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum, auto
from typing import Protocol

from signer.domain.customer import CustomerIntent
from signer.domain.record import Submission


class DeliveryVerdict(StrEnum):
    """What the card API's response to ``POST …/challenge/sign`` means."""

    ACCEPTED = auto()
    """204: the signature was verified."""
    ALREADY_SIGNED = auto()
    """409 in its first meaning: the challenge had been signed before."""
    CONFLICT_AMBIGUOUS = auto()
    """409 with a body that does not say which meaning it has: read the customer's status."""
    REFUSED = auto()
    """400: the signature or the request was not accepted; the challenge may have been replaced."""
    CUSTOMER_UNKNOWN = auto()
    """404."""
    IDEMPOTENCY_KEY_REFUSED = auto()
    """422: the Idempotency-Key was used with another payload."""
    CREDENTIALS_REFUSED = auto()
    """401 or 403, also with a fresh token."""
    NOT_PROCESSED = auto()
    """No connection, 429, 409 in flight, or breaker open: repeat with the same key."""
    UNKNOWN = auto()
    """Timeout, lost connection, 5xx or unreadable response: it may have been processed; repeat with the same key."""


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of one delivery.

    Attributes:
        verdict: what it means.
        status: the HTTP status; ``None`` without a response.
        retry_after: when to retry, if that is known.
    """

    verdict: DeliveryVerdict
    status: int | None = None
    retry_after: timedelta | None = None

    @property
    def was_sent(self) -> bool:
        """Whether the request was sent: there was a connection, and a token and a signature to send it with."""
        return self.status is not None or self.verdict not in {
            DeliveryVerdict.NOT_PROCESSED,
            DeliveryVerdict.CREDENTIALS_REFUSED,
        }


@dataclass(frozen=True, slots=True)
class NewCustomer:
    """A customer that the card API has just created.

    Attributes:
        id: its UUID.
        challenge: its first challenge, base64; ``None`` if the response had none.
    """

    id: str
    challenge: str | None = field(repr=False)


class CardApi(Protocol):
    """The card API. Reads are retried inside, within ``timeout``; a delivery is one attempt, under its own lease."""

    async def create_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> NewCustomer | None:
        """Create the customer under the intent's Idempotency-Key, with retries.

        Returns:
            The customer; ``None`` if the card API has a customer with this account and external id already, and does
            not return its id: ask ``find_customer``.

        Raises:
            MalformedRequest: ``request_malformed``: the card API refuses the account or the external id.
            Unavailable, UpstreamTimeout, BadUpstream: as ``fetch_challenge``; the customer may have been created.
        """
        ...

    async def find_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> str:
        """Return the id of the only customer with the intent's account and external id, in one attempt.

        Raises:
            NotFound: ``customer_unknown``: there is none.
            Unavailable, UpstreamTimeout, BadUpstream: as ``fetch_challenge``; also if there are several.
        """
        ...

    async def fetch_challenge(self, customer_id: str, *, timeout: timedelta, is_new: bool = False) -> str:
        """Return the customer's current challenge, base64.

        Args:
            customer_id: the customer.
            timeout: of the whole call.
            is_new: whether the customer may be so new that the card API does not find it yet. Then a
                404 is retried until the timeout, and ends as ``card_api_unavailable``.

        Raises:
            NotFound: ``customer_unknown``.
            Unavailable: ``card_api_unavailable``, ``card_api_credentials_refused``.
            UpstreamTimeout: ``card_api_timeout``.
            BadUpstream: ``card_api_invalid_answer``.
        """
        ...

    async def customer_status(self, customer_id: str, *, timeout: timedelta) -> str:
        """Return the customer's ``status``. Raises as ``fetch_challenge`` does."""
        ...

    async def submit(self, customer_id: str, submission: Submission, *, timeout: timedelta) -> DeliveryResult:
        """POST the submission's body once, under its ``idempotency_key``; after a 401, once more with a new token.

        Failures of the card API and of the network are results, not exceptions.
        """
        ...

    async def authenticate(self, *, timeout: timedelta) -> None:
        """Fetch a new token, to check the card API itself. Raises as ``fetch_challenge``, but not NotFound."""
        ...

    def suspended_for(self) -> timedelta | None:
        """Return for how long no request will be sent; ``None`` if one would be sent now.

        Causes: circuit open, Retry-After in force, or request key unavailable. Meanwhile a read raises
        ``card_api_unavailable`` and a delivery ends as ``NOT_PROCESSED``, both at once.
        """
        ...

    async def check(self) -> str | None:
        """Check that a token is valid or can be fetched, and that the card API has not refused our credentials.

        Raises as ``fetch_challenge`` does.

        Returns:
            A warning for the operator: calls are paused, or the clocks differ.
        """
        ...
