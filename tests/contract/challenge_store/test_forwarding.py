"""``begin_forwarding`` and ``defer``: one attempt at a time, each under a lease, none after the deadline."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from tests.support.challenge_stores import (
    LEASE,
    SUBMISSION,
    VALID_FOR,
    StoreUnderTest,
    bring_to,
    claim_granted,
    claim_of,
    sign,
)

PAUSE = timedelta(minutes=5)


async def test_delivery_is_taken_over_after_its_lease_ended(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    other: ChallengeStore,
) -> None:
    """The new holder gets the same bytes and a new fencing token; the old one can settle nothing."""
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


async def test_one_of_fifty_concurrent_takeovers_succeeds(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """However many replicas find it due, one delivers."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE)
    taken = await asyncio.gather(*(under_test.replica().begin_forwarding(held.record.id) for _ in range(50)))
    assert sum(one is not None for one in taken) == 1


async def test_settle_succeeds_after_lease_ended_without_takeover(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """A late response of the card API is still true while no other replica has asked it."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE * 2)
    assert (await store.settle(held.lease, ChallengeState.VERIFIED, None)).state is ChallengeState.VERIFIED


async def test_first_attempt_instant_never_changes(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """The hour of the Idempotency-Key counts from the first attempt, however many follow."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    again = await store.begin_forwarding(held.record.id)
    assert again is not None
    assert (again.record.attempts, again.record.first_attempt_at) == (2, held.record.first_attempt_at)
    assert again.record.code is None


async def test_deferred_record_is_not_due_before_its_pause_ends(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """``forwarding → signed``, and no replica can take it earlier."""
    held = await sign(store, claim_of())
    record = await store.defer(held.lease, RecordCode.CARD_API_BUSY, PAUSE)
    assert (record.state, record.code, record.leased_until) == (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY, None)
    assert not record.is_done
    assert await store.begin_forwarding(record.id) is None
    assert await store.due(10) == []
    await under_test.advance(PAUSE)
    assert await store.due(10) == [record.id]
    again = await store.begin_forwarding(record.id)
    assert again is not None
    assert again.lease.fencing_token > held.lease.fencing_token


async def test_defer_stores_since_when_delivery_is_refused(store: ChallengeStore) -> None:
    """The next lease holder reads it; a pause for another reason removes it."""
    held = await sign(store, claim_of())
    since = held.record.updated_at
    assert held.record.refused_since is None
    record = await store.defer(held.lease, RecordCode.REFUSAL_UNCONFIRMED, timedelta(0), refused_since=since)
    again = await store.begin_forwarding(record.id)
    assert again is not None
    assert (record.refused_since, again.record.refused_since) == (since, since)
    assert (await store.defer(again.lease, RecordCode.CARD_API_BUSY, timedelta(0))).refused_since is None


async def test_defer_stores_the_customers_status(store: ChallengeStore) -> None:
    """It stays when the record is leased again."""
    held = await sign(store, claim_of())
    assert held.record.upstream_status is None
    status = CustomerStatus.INITIATING
    record = await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0), upstream_status=status)
    again = await store.begin_forwarding(record.id)
    assert again is not None
    assert (record.upstream_status, again.record.upstream_status) == (status, status)


async def test_pause_ends_at_the_deadline(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """A later ``Retry-After`` does not delay finding out what became of the attempt."""
    held = await sign(store, claim_of(valid_for=timedelta(minutes=1)))
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(hours=1))
    await under_test.advance(timedelta(minutes=1))
    assert await store.due(10) == [held.record.id]
    begun = await store.begin_forwarding(held.record.id)
    assert begun is not None
    assert not begun.deliverable


async def test_attempted_delivery_is_returned_after_its_deadline(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Not deliverable, no attempt counted; the next pause may be of any length."""
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


async def test_nothing_is_deliverable_an_hour_after_the_first_attempt(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """The card API has forgotten the Idempotency-Key then: a POST would be a new one, before the deadline as well."""
    held = await sign(store, claim_of(valid_for=timedelta(hours=2)))
    await under_test.advance(timedelta(hours=1))
    begun = await store.begin_forwarding(held.record.id)
    assert begun is not None
    assert (begun.deliverable, begun.record.attempts) == (False, 1)


async def test_record_without_attempt_is_not_returned_after_its_deadline(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """There is nothing to find out: ``expire`` ends it."""
    held = await sign(store, claim_of(forward=False))
    await store.claim(claim_of(forward=True))
    await under_test.advance(VALID_FOR)
    assert await store.begin_forwarding(held.record.id) is None
    assert await store.due(10) == [held.record.id]


async def test_unsigned_or_final_record_cannot_be_forwarded(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """Neither at once nor after the lease."""
    states = [state for state in ChallengeState if state.is_final or state.is_unsigned]
    leases = [await bring_to(store, state, nonce=f"nonce-{state.value}") for state in states]
    for after in (timedelta(0), LEASE):
        await under_test.advance(after)
        for state, lease in zip(states, leases, strict=True):
            assert await store.begin_forwarding(lease.id) is None, (state, after)


async def test_unknown_record_or_one_without_forward_cannot_be_forwarded(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Recovery does not touch ``forward: false``."""
    assert await store.begin_forwarding(claim_of("unknown0001").id) is None
    lease = await claim_granted(store, claim_of(forward=False))
    await store.record_signature(lease, SUBMISSION)
    await under_test.advance(LEASE)
    assert await store.begin_forwarding(lease.id) is None
