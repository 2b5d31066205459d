"""A call whose reply was lost is sent again with the same token: it changes nothing more and has the same result."""

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
    claim_granted,
    claim_of,
    sign,
)

PAUSE = timedelta(seconds=5)

Prepare = Callable[[ChallengeStore], Awaitable[Lease]]
Move = Callable[[ChallengeStore, Lease], Awaitable[object]]


@pytest.fixture
def same_call(under_test: StoreUnderTest) -> ChallengeStore:
    """A replica that gives every call the same token: calling a method twice is one call, sent twice."""
    return under_test.replica(lambda: "the same call")


async def _claimed(store: ChallengeStore) -> Lease:
    return await claim_granted(store, claim_of())


async def _forwarding(store: ChallengeStore) -> Lease:
    return (await sign(store, claim_of())).lease


MOVES: dict[str, tuple[Prepare, Move]] = {
    "record_signature": (_claimed, lambda store, lease: store.record_signature(lease, SUBMISSION)),
    "release": (_claimed, lambda store, lease: store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)),
    "defer": (_forwarding, lambda store, lease: store.defer(lease, RecordCode.CARD_API_BUSY, PAUSE)),
    "settle": (_forwarding, lambda store, lease: store.settle(lease, ChallengeState.VERIFIED, None)),
    "settle superseded": (
        _forwarding,
        lambda store, lease: store.settle(lease, ChallengeState.SUPERSEDED, RecordCode.CARD_API_BUSY, "00" * 17),
    ),
}


async def test_repeated_move_changes_nothing_more(under_test: StoreUnderTest) -> None:
    """The second result is the record as the move left it; no attempt, instant or fencing token has changed."""
    for name, (prepare, move) in MOVES.items():
        stores = under_test.emptied()
        store, same_call = stores.replica(), stores.replica(lambda: "the same call")
        lease = await prepare(store)
        first = await move(same_call, lease)
        again = await move(same_call, lease)
        assert _record(again) == _record(first) == await store.get(lease.id), name


async def test_repeated_claim_is_granted_with_same_lease(store: ChallengeStore, same_call: ChallengeStore) -> None:
    """Any other outcome would leave a lease that no replica knows of."""
    first = await same_call.claim(claim_of())
    again = await same_call.claim(claim_of())
    assert (again.outcome, again.record) == (ClaimOutcome.GRANTED, first.record)
    assert again.lease is not None
    assert again.lease.fencing_token == 1
    assert timedelta(0) < again.lease.remaining <= LEASE
    assert (await store.claim(claim_of())).outcome is ClaimOutcome.LEASED_ELSEWHERE


async def test_repeated_takeover_is_granted_with_same_lease(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    same_call: ChallengeStore,
) -> None:
    """The fencing token grew once."""
    await claim_granted(store, claim_of())
    await under_test.advance(LEASE)
    first = await same_call.claim(claim_of())
    again = await same_call.claim(claim_of())
    assert (again.outcome, again.record, again.record.fencing_token) == (ClaimOutcome.GRANTED, first.record, 2)


async def test_claim_repeated_after_its_lease_gets_a_new_lease(
    under_test: StoreUnderTest,
    same_call: ChallengeStore,
) -> None:
    """The lease that it returns is live."""
    await same_call.claim(claim_of())
    await under_test.advance(LEASE)
    again = await same_call.claim(claim_of())
    assert again.lease is not None
    assert (again.lease.fencing_token, again.lease.remaining) == (2, LEASE)


async def test_repeated_begin_forwarding_counts_one_attempt(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    same_call: ChallengeStore,
) -> None:
    """It returns the lease of the lost reply."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE)
    first = await same_call.begin_forwarding(held.record.id)
    again = await same_call.begin_forwarding(held.record.id)
    assert first is not None
    assert again is not None
    assert (again.record, again.record.attempts, again.deliverable) == (first.record, 2, True)
    assert again.lease.fencing_token == first.lease.fencing_token
    assert await store.begin_forwarding(held.record.id) is None


async def test_repeated_expire_returns_the_expired_record(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    same_call: ChallengeStore,
) -> None:
    """A call by another replica returns ``None``: there is nothing to expire."""
    lease = await claim_granted(store, claim_of())
    await under_test.advance(VALID_FOR)
    first = await same_call.expire(lease.id)
    assert first is not None
    assert await same_call.expire(lease.id) == first
    assert await store.expire(lease.id) is None


def _record(result: object) -> object:
    return result.record if isinstance(result, LeasedRecord) else result
