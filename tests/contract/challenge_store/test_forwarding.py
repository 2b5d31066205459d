"""``begin_forwarding`` and ``defer``: one attempt at a time, each under a lease, none past the deadline."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    LEASE,
    SUBMISSION,
    VALID_FOR,
    StoreUnderTest,
    bring_to,
    claim_mine,
    claim_of,
    sign,
)

PAUSE = timedelta(seconds=5)


async def test_a_dead_holders_delivery_is_taken_over_after_its_lease(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    other: ChallengeStore,
) -> None:
    """The successor gets the same bytes under a new fence and counts an attempt; the old holder can settle nothing."""
    held = await sign(store, claim_of())
    assert await other.begin_forwarding(held.record.id) is None
    await under_test.advance(LEASE)
    taken = await other.begin_forwarding(held.record.id)
    assert taken is not None
    assert taken.lease.fencing_token > held.lease.fencing_token
    assert (taken.record.attempts, taken.lease.remaining, taken.deliverable) == (2, LEASE, True)
    assert taken.record.submission is not None
    assert taken.record.submission.body == SUBMISSION.body
    for state in (ChallengeState.VERIFIED, ChallengeState.REJECTED):
        with pytest.raises(LeaseLost):
            await store.settle(held.lease, state, None)
    with pytest.raises(LeaseLost):
        await store.defer(held.lease, RecordCode.CARD_API_BUSY, PAUSE)


async def test_fifty_replicas_take_a_delivery_over_once(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """However many find it due, one delivers."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE)
    taken = await asyncio.gather(*(under_test.replica().begin_forwarding(held.record.id) for _ in range(50)))
    assert sum(one is not None for one in taken) == 1


async def test_a_holder_may_settle_after_his_lease_while_nobody_took_over(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """What the card API said late is still true while nobody else has asked it."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE * 2)
    assert (await store.settle(held.lease, ChallengeState.VERIFIED, None)).state is ChallengeState.VERIFIED


async def test_the_first_attempt_is_remembered(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """The hour of the Idempotency-Key counts from the first attempt, however many follow."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    again = await store.begin_forwarding(held.record.id)
    assert again is not None
    assert (again.record.attempts, again.record.first_attempt_at) == (2, held.record.first_attempt_at)
    assert again.record.code is None


async def test_a_deferred_record_is_left_alone_until_its_pause_is_over(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """``forwarding → signed``, and nobody touches it early."""
    held = await sign(store, claim_of())
    record = await store.defer(held.lease, RecordCode.CARD_API_BUSY, PAUSE)
    assert (record.state, record.code, record.leased_until) == (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY, None)
    assert not record.is_settled
    assert await store.begin_forwarding(record.id) is None
    assert await store.due(10) == []
    await under_test.advance(PAUSE)
    assert await store.due(10) == [record.id]
    again = await store.begin_forwarding(record.id)
    assert again is not None
    assert again.lease.fencing_token > held.lease.fencing_token


async def test_a_pause_ends_with_the_deadline(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """A ``Retry-After`` beyond the deadline does not delay finding out what became of the attempt."""
    held = await sign(store, claim_of(valid_for=timedelta(minutes=1)))
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(hours=1))
    await under_test.advance(timedelta(minutes=1))
    assert await store.due(10) == [held.record.id]
    begun = await store.begin_forwarding(held.record.id)
    assert begun is not None
    assert not begun.deliverable


async def test_an_attempt_of_unknown_end_is_handed_out_past_the_deadline_to_be_asked_about(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Handed out, not deliverable, no attempt counted; the next pause may be as long as it likes."""
    held = await sign(store, claim_of())
    await under_test.advance(VALID_FOR)
    assert await store.expire(held.record.id) is None
    overdue = await store.begin_forwarding(held.record.id)
    assert overdue is not None
    assert (overdue.record.state, overdue.record.attempts, overdue.deliverable) == (ChallengeState.FORWARDING, 1, False)
    await store.defer(overdue.lease, RecordCode.OUTCOME_UNKNOWN, PAUSE)
    assert await store.begin_forwarding(held.record.id) is None
    await under_test.advance(PAUSE)
    assert await store.begin_forwarding(held.record.id) is not None


async def test_nothing_is_deliverable_once_the_card_api_has_forgotten_the_key(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """An hour after the first attempt a POST would be a new one for the card API, deadline or not."""
    held = await sign(store, claim_of(valid_for=timedelta(hours=2)))
    await under_test.advance(timedelta(hours=1))
    begun = await store.begin_forwarding(held.record.id)
    assert begun is not None
    assert (begun.deliverable, begun.record.attempts) == (False, 1)


async def test_a_record_without_an_attempt_is_not_handed_out_past_its_deadline(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """There is nothing to ask about: ``expire`` ends it."""
    held = await sign(store, claim_of(forward=False))
    await store.claim(claim_of(forward=True))
    await under_test.advance(VALID_FOR)
    assert await store.begin_forwarding(held.record.id) is None
    assert await store.due(10) == [held.record.id]


@pytest.mark.parametrize("state", [state for state in ChallengeState if state.is_final or state.is_unsigned])
async def test_what_is_unsigned_or_final_is_not_handed_out(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    state: ChallengeState,
) -> None:
    """Neither now nor after any lease."""
    lease = await bring_to(store, state)
    assert await store.begin_forwarding(lease.id) is None
    await under_test.advance(LEASE)
    assert await store.begin_forwarding(lease.id) is None


async def test_what_is_unknown_or_to_be_kept_is_not_handed_out(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """``forward: false`` is left alone by recovery."""
    assert await store.begin_forwarding(claim_of("unknown0001").id) is None
    lease = await claim_mine(store, claim_of(forward=False))
    await store.record_signature(lease, SUBMISSION)
    await under_test.advance(LEASE)
    assert await store.begin_forwarding(lease.id) is None
