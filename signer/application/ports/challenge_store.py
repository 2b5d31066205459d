"""The records of challenges, and the right to move them: claims, leases, moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, Submission


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

    GRANTED = auto()
    """The nonce is ours to sign: the record is ``claimed`` under our lease."""
    LEASED_ELSEWHERE = auto()
    """The same message is in other hands under a live lease."""
    PAST_SIGNING = auto()
    """The same message is past its signing; nothing is to be signed."""
    NONCE_REUSED = auto()
    """The nonce belongs to another message. The record returned is that one's."""
    OTHER_CUSTOMER = auto()
    """The message belongs to another customer. The record returned is that one's."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to move one record for a while, as long as ``fencing_token`` is the record's.

    Attributes:
        id: of the challenge.
        fencing_token: the fencing token: it grows with every new holder, and a move that carries an old one is refused.
        remaining: how much of the lease was left when the store answered, by the store's clock.
        asked_at: when the store was asked for that, seconds of this process's monotonic clock.
    """

    id: str
    fencing_token: int
    remaining: timedelta
    asked_at: float = field(compare=False)

    def left(self, now: float) -> timedelta:
        """Say how much is left, on the safe side, at ``now`` by the same clock as ``asked_at``; may be negative."""
        return self.remaining - timedelta(seconds=now - self.asked_at)


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The answer to a claim; ``lease`` is there where the outcome is ``GRANTED``."""

    outcome: ClaimOutcome
    record: ChallengeRecord
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class LeasedRecord:
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

    async def claim(self, claim: Claim) -> ClaimResult:
        """Take the nonce for this message: the record becomes, or is again, ``claimed`` under a new lease.

        A record that is ``released``, or ``claimed`` under a lease that has ended, is taken over. ``claim.forward``
        turns a record's ``forward`` on, whatever the outcome but a conflict; it never turns it off. A challenge that
        is over by the store's clock, and that the store does not know, is not begun: ``Unavailable``.
        """
        ...

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """Make the signature durable: ``claimed → signed``, and on to ``forwarding`` where it is to be delivered.

        In ``forwarding`` the lease is renewed and the first attempt counted; in ``signed`` it has ended, and the lease
        returned is worth nothing.
        """
        ...

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """Give the nonce back unsigned, for the same message only: ``claimed → released``."""
        ...

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """Take a deliverable record for one attempt: ``signed → forwarding``, or ``forwarding`` under a new lease.

        Each call that hands a record out renews or makes the lease and counts one attempt. Gives ``None`` where there
        is nothing to take: unknown, final, not to be delivered, paused by ``defer``, in other hands under a live lease,
        or past its deadline without any attempt (``expire`` ends that). A record past its deadline that has been
        attempted is handed out with ``deliverable`` false and no attempt counted, for somebody has to find out what
        became of it.
        """
        ...

    async def defer(self, lease: Lease, code: RecordCode, retry_in: timedelta) -> ChallengeRecord:
        """Put the record down until the next attempt: ``forwarding → signed``, due in ``retry_in``."""
        ...

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
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
