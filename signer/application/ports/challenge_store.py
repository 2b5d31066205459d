"""The port to the records of challenges: claims, leases and moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request to sign one message, with everything that a new record needs."""

    id: str
    message_hash: str
    customer_id: str
    owner: AccountId
    forward: bool
    issued_at: datetime
    expires_at: datetime


class ClaimOutcome(Enum):
    """The outcome of a claim."""

    GRANTED = auto()
    """The caller may sign: the record is ``claimed`` under the returned lease."""
    LEASED_ELSEWHERE = auto()
    """Another replica has a live lease on the same message."""
    PAST_SIGNING = auto()
    """The same message was signed before, or is final; nothing is to be signed."""
    NONCE_REUSED = auto()
    """The nonce belongs to another message, whose record is returned."""
    OTHER_CUSTOMER = auto()
    """The message belongs to another customer, whose record is returned."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The time-limited right to move one record, valid as long as the record has the same ``fencing_token``.

    Attributes:
        id: of the challenge.
        fencing_token: grows with every new lease; a move with an old one is refused.
        remaining: the time left at the store's response, by the store's clock.
        called_at: when the call began, in seconds of this process's monotonic clock.
    """

    id: str
    fencing_token: int
    remaining: timedelta
    called_at: float = field(compare=False)

    def remaining_at(self, now: float) -> timedelta:
        """Return a lower bound of the time left at ``now``, by the same clock as ``called_at``; may be negative."""
        return self.remaining - timedelta(seconds=now - self.called_at)


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The result of a claim; it has a lease if the outcome is ``GRANTED``."""

    outcome: ClaimOutcome
    record: ChallengeRecord
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class LeasedRecord:
    """A record and the caller's lease on it.

    Attributes:
        record: its current content.
        lease: the caller's.
        deliverable: whether it may be POSTed, by the store's clock: before its deadline, and within the hour for which
            the card API remembers the Idempotency-Key of the first attempt.
    """

    record: ChallengeRecord
    lease: Lease
    deliverable: bool


class ChallengeStore(Protocol):
    """The records. Every method is one atomic step, and repeating a call whose response was lost changes nothing more.

    All methods raise ``Unavailable`` (``store_unavailable``) if the store cannot be reached or refuses writes. Methods
    with a lease raise ``LeaseLost`` if another replica has taken the record over. All methods about one challenge,
    except ``find``, raise ``RecordDamaged`` if its stored record is damaged; the store has reported it then.
    """

    async def claim(self, claim: Claim) -> ClaimResult:
        """Reserve the nonce for this message: the record becomes ``claimed`` under a new lease.

        A record that is ``released``, or ``claimed`` under a lease that has ended, is taken over. ``claim.forward``
        turns the record's ``forward`` on, unless the nonce or the customer conflicts; it never turns it off. Raises
        ``Unavailable`` for a challenge without a record that has expired by the store's clock.
        """
        ...

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """Store the signature: ``claimed → signed``, and on to ``forwarding`` if it is to be delivered.

        In ``forwarding`` the lease is renewed and the first attempt counted; in ``signed`` the lease has ended.
        """
        ...

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """Release the unsigned nonce, for the same message only: ``claimed → released``."""
        ...

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """Lease a record for one attempt: ``signed → forwarding``, or ``forwarding`` under a new lease.

        Counts one attempt. Returns ``None`` if the record is unknown, final, not to be delivered, paused by ``defer``,
        under another replica's live lease, or after its deadline without an attempt (``expire`` settles it). A record
        after its deadline with an attempt is returned with ``deliverable`` false, and no attempt is counted: the caller
        has to read the result of the earlier one from the card API. Ends a damaged record, as ``expired``.
        """
        ...

    async def defer(
        self,
        lease: Lease,
        code: RecordCode,
        retry_in: timedelta,
        *,
        upstream_status: CustomerStatus | None = None,
        refused_since: datetime | None = None,
    ) -> ChallengeRecord:
        """Pause until the next attempt: ``forwarding → signed``, due in ``retry_in``; store the other arguments."""
        ...

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
        *,
        upstream_status: CustomerStatus | None = None,
    ) -> ChallengeRecord:
        """Write a final state: from ``forwarding``; store the arguments, also ``None``, and remove the submission."""
        ...

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """Expire a record after its deadline; return ``None`` if it has a live lease, an attempt, or time left.

        The code is ``not_signed`` for ``claimed`` and ``released``, ``not_forwarded`` for ``signed`` that was not to be
        delivered, ``not_delivered`` for ``signed`` without an attempt.
        """
        ...

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """Return one record, or ``None``."""
        ...

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """Return the newest record of a customer and an owner; ``None`` if there is none, or it is damaged."""
        ...

    async def due(self, limit: int) -> Sequence[str]:
        """Return up to ``limit`` unsettled challenges whose lease, pause or deadline has ended."""
        ...

    async def ping(self) -> None:
        """Return if the store can be reached and accepts writes, else raise ``Unavailable``."""
        ...
