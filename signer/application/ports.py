"""What the use cases need of the world, as Protocols. Adapters implement them; tests run one suite per port.

Rules that hold for every implementation:

* Errors are the domain's (``signer.domain.errors``); a vendor's exception never passes a port.
* A port that is down raises ``Unavailable``; nothing is guessed.
* Instants are aware datetimes in UTC, spans are ``timedelta``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Protocol

from signer.domain.customer import CustomerIntent
from signer.domain.ethereum import AccountId, Eip191Message, EvmSignature
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord, Submission

# --- Time -------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """The wall clock, for the rules about issue and expiry. Leases live by the store's clock."""

    def now(self) -> datetime:
        """Give the present, aware, UTC."""
        ...


# --- Keys -------------------------------------------------------------------------------------------------------------


class SigningKey(Protocol):
    """One key, wherever it lives. What it returns has been finished and verified against its own address."""

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        ...

    @property
    def uri(self) -> str:
        """Which backend holds it, without secrets: fit for a log line."""
        ...

    async def sign(self, message: Eip191Message) -> EvmSignature:
        """Sign ``message.digest``; low-s, with ``y_parity``, recovering to ``address``.

        Raises:
            Unavailable: ``key_backend_unavailable``, or ``key_signature_invalid`` where the backend's answer was wrong.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeyRingStatus:
    """How the keys are, for readiness and for the person on call.

    Attributes:
        loaded: how many keys can sign now.
        loading: whether a first load is still under way.
        missing: owners (EIP-55) that the settings expect and no backend holds.
        failed: key URIs without secrets, each with the reason why it could not be loaded.
    """

    loaded: int
    loading: bool
    missing: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether every key that should be here is."""
        return self.loaded > 0 and not self.loading and not self.missing and not self.failed


class KeyRing(Protocol):
    """All keys that are loaded now. Reading takes no lock, for a reload swaps the whole ring."""

    def find(self, address: str) -> SigningKey | None:
        """Give the key of an EIP-55 address, or ``None``."""
        ...

    def keys(self) -> Sequence[SigningKey]:
        """Give every key, ordered by address."""
        ...

    def status(self) -> KeyRingStatus:
        """Tell what is loaded, what is missing and why."""
        ...


@dataclass(frozen=True, slots=True)
class KeyReloadReport:
    """What a reload has changed.

    Attributes:
        added: owners (EIP-55) that can be signed for now and could not before.
        removed: those that could and cannot any more.
        unchanged: those that could and can.
        failed: URIs without secrets of the keys and backends that could not be loaded, each with the reason.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: Mapping[str, str]


class KeyReloader(Protocol):
    """What looks at the backends again. A key ring is one; who only reads keys does not need to know."""

    async def reload(self) -> KeyReloadReport:
        """Look at every backend and swap the ring: whoever signs meanwhile signs.

        What could not be loaded stands in the report and is no error. A backend that is down as a whole keeps the keys
        that it has given.
        """
        ...


class SignatureVerifier(Protocol):
    """Recovers who signed: used before a stored signature is sent again."""

    def signer_of(self, message: Eip191Message, signature: EvmSignature) -> str | None:
        """Give the EIP-55 address that the signature recovers to; ``None`` where it recovers to none."""
        ...


# --- The store --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The wish to sign one message, and all that the first record needs."""

    id: str
    message_hash: str
    customer_id: str
    owner: AccountId
    forward: bool
    issued_at: datetime
    expires_at: datetime


class ClaimOutcome(Enum):
    """What became of a claim."""

    MINE = auto()
    """The nonce is ours to sign: the record is ``claimed`` under our lease."""
    HELD = auto()
    """The same message is in other hands under a live lease."""
    KNOWN = auto()
    """The same message is past its signing; nothing is to be signed."""
    NONCE_REUSED = auto()
    """The nonce belongs to another message. The record returned is that one's."""
    BOUND_ELSEWHERE = auto()
    """The message belongs to another customer. The record returned is that one's."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to move one record, until ``until`` (the store's clock) and while ``fence`` is the record's.

    Attributes:
        id: of the challenge.
        fence: the fencing token: it grows with every new holder, and a move that carries an old one is refused.
        remaining: how much of the lease was left when the store answered.
    """

    id: str
    fence: int
    remaining: timedelta


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim; ``lease`` is there where the outcome is ``MINE``."""

    outcome: ClaimOutcome
    record: ChallengeRecord
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A record together with the lease under which its holder may move it.

    Attributes:
        record: as it is now.
        lease: ours.
        deliverable: whether it may be POSTed by the store's clock: before its deadline, and within the hour for which
            the card API remembers the Idempotency-Key of the first attempt.
    """

    record: ChallengeRecord
    lease: Lease
    deliverable: bool


class ChallengeStore(Protocol):
    """The records. Every method is one atomic step, and repeating one whose answer was lost changes nothing more.

    All methods raise ``Unavailable`` (``store_unavailable``) where the store cannot be reached or does not accept
    writes; those that take a lease raise ``LeaseLost`` where it is no longer the record's.
    """

    async def claim(self, claim: Claim) -> Claimed:
        """Take the nonce for this message: the record becomes, or is again, ``claimed`` under a new lease.

        A record that is ``released``, or ``claimed`` under a lease that has ended, is taken over. ``claim.forward``
        turns a record's ``forward`` on, whatever the outcome but a conflict; it never turns it off.
        """
        ...

    async def record_signature(self, lease: Lease, submission: Submission) -> Held:
        """Make the signature durable: ``claimed → signed``, and on to ``forwarding`` where it is to be delivered.

        In ``forwarding`` the lease is renewed and the first attempt counted; in ``signed`` it has ended, and the lease
        returned is worth nothing.
        """
        ...

    async def release(self, lease: Lease, code: str) -> ChallengeRecord:
        """Give the nonce back unsigned, for the same message only: ``claimed → released``."""
        ...

    async def begin_forwarding(self, challenge_id: str) -> Held | None:
        """Take a deliverable record for one attempt: ``signed → forwarding``, or ``forwarding`` under a new lease.

        Each call that hands a record out renews or makes the lease and counts one attempt. Gives ``None`` where there
        is nothing to take: unknown, final, not to be delivered, paused by ``defer``, in other hands under a live lease,
        or past its deadline without any attempt (``expire`` ends that). A record past its deadline that has been
        attempted is handed out with ``deliverable`` false and no attempt counted, for somebody has to find out what
        became of it.
        """
        ...

    async def defer(self, lease: Lease, code: str, retry_in: timedelta) -> ChallengeRecord:
        """Put the record down until the next attempt: ``forwarding → signed``, due in ``retry_in``."""
        ...

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: str | None,
        superseded_by: str | None = None,
    ) -> ChallengeRecord:
        """End the record under our lease: ``forwarding`` to a final state; the submission is dropped."""
        ...

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """End a record that nobody holds and whose deadline has passed, as ``expired``; ``None`` where it is not one.

        The code says why: ``not_signed`` for ``claimed`` and ``released``, ``not_forwarded`` for ``signed`` that was
        not to be delivered, ``not_delivered`` for ``signed`` of which no attempt was ever begun.
        """
        ...

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """Read one record."""
        ...

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """Read the newest record of a customer and an owner."""
        ...

    async def due(self, limit: int) -> Sequence[str]:
        """Name up to ``limit`` unsettled challenges whose lease, pause or deadline is over, from all shards."""
        ...

    async def ping(self) -> None:
        """Return where the store is reachable and takes writes."""
        ...


class CustomerIntents(Protocol):
    """The customers that are to be created. Both methods raise ``Unavailable`` where the store cannot be reached."""

    async def begin(self, intent: CustomerIntent) -> str | None:
        """Store the intent where it is new; gives the customer's id where it is known already."""
        ...

    async def complete(self, intent: CustomerIntent, customer_id: str) -> None:
        """Store the id that the card API gave; a second one for the same intent changes nothing."""
        ...


# --- The card API -----------------------------------------------------------------------------------------------------


class DeliveryVerdict(Enum):
    """What the card API's answer to ``POST …/challenge/sign`` means."""

    ACCEPTED = auto()
    """204: the signature was verified."""
    ALREADY_SIGNED = auto()
    """409 in its first meaning: the challenge had been signed before."""
    CONFLICT_UNCLEAR = auto()
    """409 with a body that does not tell which: ask for the customer."""
    REFUSED = auto()
    """400: the signature, or the request, was not accepted; the challenge may have been replaced."""
    CUSTOMER_UNKNOWN = auto()
    """404."""
    KEY_REFUSED = auto()
    """422: the Idempotency-Key was used with another payload."""
    CREDENTIALS_REFUSED = auto()
    """401 or 403, also with a fresh token."""
    NOT_PROCESSED = auto()
    """It was not taken up (no connection, 429, 409 in flight, breaker open): repeat with the same key."""
    UNKNOWN = auto()
    """It may have been processed (timeout, connection cut, 5xx, a senseless answer): repeat with the same key."""


@dataclass(frozen=True, slots=True)
class Delivery:
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
    ) -> Delivery:
        """POST the stored body once, under its key; a 401 is answered with one new token and one repetition inside.

        Never raises for what the API or the network did: that is what the verdict is for.
        """
        ...

    def held_off_for(self) -> timedelta | None:
        """Say for how long the API is not asked, because it is down or wants it so; ``None`` where it is asked.

        Meanwhile a reading raises ``card_api_unavailable`` and a delivery ends ``NOT_PROCESSED``, both at once.
        """
        ...

    async def check(self) -> str | None:
        """Return where a valid token is at hand or can be had; raises as ``fetch_challenge`` does.

        What the person on call should know all the same (not asked for now, a clock that is wrong) is returned.
        """
        ...


# --- The audit trail --------------------------------------------------------------------------------------------------


class EventName(StrEnum):
    """What can happen to a challenge. Alerts are written against these names: append; never rename."""

    CUSTOMER_CREATED = "customer.created"
    REFUSED = "challenge.refused"
    CONFLICTED = "challenge.conflicted"
    CLAIMED = "challenge.claimed"
    RELEASED = "challenge.released"
    SIGNED = "challenge.signed"
    TAKEN_OVER = "challenge.taken_over"
    DELIVERED = "challenge.delivered"
    DEFERRED = "challenge.deferred"
    SETTLED = "challenge.settled"
    LEASE_LOST = "challenge.lease_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that happened to one challenge. It has no field that could hold a secret or a text of the message.

    Attributes:
        name: what happened.
        challenge_id: where it is known.
        customer_id: of the request.
        owner: CAIP-10.
        state: the record's, after the move.
        code: the reason or the refusal's code.
        key_uri: which backend signed, without secrets.
        attempt: the number of the POST.
        status: the card API's HTTP status.
        duration_ms: how long the step took.
        idempotency_key: under which the signature was delivered.
    """

    name: EventName
    customer_id: str
    owner: str
    challenge_id: str | None = None
    state: str | None = None
    code: str | None = None
    key_uri: str | None = None
    attempt: int | None = None
    status: int | None = None
    duration_ms: float | None = None
    idempotency_key: str | None = None


class AuditLog(Protocol):
    """Where the moves of challenges are written down."""

    def write(self, event: AuditEvent) -> None:
        """Write one event; never raises and never waits."""
        ...
