"""A call whose answer was lost is sent again, as the same call: it changes nothing more and is answered as before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore, ClaimOutcome, Lease, LeasedRecord
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    LEASE,
    SUBMISSION,
    VALID_FOR,
    StoreUnderTest,
    claim_mine,
    claim_of,
    sign,
)

PAUSE = timedelta(seconds=5)

Call = Callable[[ChallengeStore], Awaitable[object]]


@pytest.fixture
def same_call(under_test: StoreUnderTest) -> ChallengeStore:
    """A replica whose every call bears one name: calling a method twice is one call, sent twice."""
    return under_test.replica(lambda: "the same call")


async def _claimed(store: ChallengeStore) -> Lease:
    return await claim_mine(store, claim_of())


async def _forwarding(store: ChallengeStore) -> Lease:
    return (await sign(store, claim_of())).lease


@pytest.mark.parametrize(
    ("before", "move"),
    [
        (_claimed, lambda store, lease: store.record_signature(lease, SUBMISSION)),
        (_claimed, lambda store, lease: store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)),
        (_forwarding, lambda store, lease: store.defer(lease, RecordCode.CARD_API_BUSY, PAUSE)),
        (_forwarding, lambda store, lease: store.settle(lease, ChallengeState.VERIFIED, None)),
        (
            _forwarding,
            lambda store, lease: store.settle(lease, ChallengeState.SUPERSEDED, RecordCode.CARD_API_BUSY, "00" * 17),
        ),
    ],
    ids=["record_signature", "release", "defer", "settle", "settle-superseded"],
)
async def test_a_holders_move_is_made_once(
    store: ChallengeStore,
    same_call: ChallengeStore,
    before: Callable[[ChallengeStore], Awaitable[Lease]],
    move: Callable[[ChallengeStore, Lease], Awaitable[object]],
) -> None:
    """The repetition gives the record as the move left it; no attempt, instant or fence has moved on."""
    lease = await before(store)
    first = await move(same_call, lease)
    again = await move(same_call, lease)
    assert _record(again) == _record(first) == await store.get(lease.id)


async def test_a_repeated_claim_is_still_mine(store: ChallengeStore, same_call: ChallengeStore) -> None:
    """``HELD`` would be held by nobody who knows of it."""
    first = await same_call.claim(claim_of())
    again = await same_call.claim(claim_of())
    assert (again.outcome, again.record) == (ClaimOutcome.GRANTED, first.record)
    assert again.lease is not None
    assert again.lease.fencing_token == 1
    assert timedelta(0) < again.lease.remaining <= LEASE
    assert (await store.claim(claim_of())).outcome is ClaimOutcome.LEASED_ELSEWHERE


async def test_a_repeated_takeover_is_still_mine(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    same_call: ChallengeStore,
) -> None:
    """The fence grew once."""
    await claim_mine(store, claim_of())
    await under_test.advance(LEASE)
    first = await same_call.claim(claim_of())
    again = await same_call.claim(claim_of())
    assert (again.outcome, again.record, again.record.fencing_token) == (ClaimOutcome.GRANTED, first.record, 2)


async def test_a_claim_repeated_after_its_lease_takes_a_new_one(
    under_test: StoreUnderTest,
    same_call: ChallengeStore,
) -> None:
    """Whoever waited that long has to hold a lease that lives."""
    await same_call.claim(claim_of())
    await under_test.advance(LEASE)
    again = await same_call.claim(claim_of())
    assert again.lease is not None
    assert (again.lease.fencing_token, again.lease.remaining) == (2, LEASE)


async def test_a_repeated_begin_counts_one_attempt(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    same_call: ChallengeStore,
) -> None:
    """And its caller gets the lease that the lost answer gave him."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE)
    first = await same_call.begin_forwarding(held.record.id)
    again = await same_call.begin_forwarding(held.record.id)
    assert first is not None
    assert again is not None
    assert (again.record, again.record.attempts, again.deliverable) == (first.record, 2, True)
    assert again.lease.fencing_token == first.lease.fencing_token
    assert await store.begin_forwarding(held.record.id) is None


async def test_a_repeated_expire_gives_the_expired_record(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    same_call: ChallengeStore,
) -> None:
    """Another's does not: nothing is left to expire."""
    lease = await claim_mine(store, claim_of())
    await under_test.advance(VALID_FOR)
    first = await same_call.expire(lease.id)
    assert first is not None
    assert await same_call.expire(lease.id) == first
    assert await store.expire(lease.id) is None


def _record(answer: object) -> object:
    return answer.record if isinstance(answer, LeasedRecord) else answer
