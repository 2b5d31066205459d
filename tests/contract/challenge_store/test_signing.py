"""``record_signature`` and ``release``: the moves of a claimed record."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore, Lease
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import Submission
from tests.support.challenge_stores import LEASE, SUBMISSION, StoreUnderTest, claim_granted, claim_of, sign

ANOTHER = Submission(b'{"another":"body"}', "another proof")


async def test_signature_with_forward_begins_the_first_attempt(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """In one step: the lease starts again with the same fencing token."""
    lease = await claim_granted(store, claim_of())
    await under_test.advance(LEASE / 2)
    held = await store.record_signature(lease, SUBMISSION)
    record = held.record
    assert record.state is ChallengeState.FORWARDING
    assert record.submission is not None
    assert (record.submission.body, record.submission.signature) == (SUBMISSION.body, SUBMISSION.signature)
    assert record.signature == SUBMISSION.signature
    assert (record.attempts, record.first_attempt_at) == (1, record.updated_at)
    assert (held.lease.id, held.lease.fencing_token, held.lease.remaining) == (lease.id, lease.fencing_token, LEASE)
    assert held.deliverable


async def test_signature_without_forward_ends_the_lease(store: ChallengeStore) -> None:
    """Nothing is begun, and the returned lease has no time left."""
    held = await sign(store, claim_of(forward=False))
    assert held.record.state is ChallengeState.SIGNED
    assert (held.record.attempts, held.record.first_attempt_at, held.record.leased_until) == (0, None, None)
    assert held.record.is_done
    assert held.lease.remaining == timedelta(0)
    with pytest.raises(LeaseLost):
        await store.settle(held.lease, ChallengeState.VERIFIED, None)


async def test_signature_is_recorded_after_lease_ended_without_takeover(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """The lease holder may write until a takeover: until then no other replica can have signed or sent anything."""
    lease = await claim_granted(store, claim_of())
    await under_test.advance(LEASE * 2)
    held = await store.record_signature(lease, SUBMISSION)
    assert (held.record.state, held.lease.remaining) == (ChallengeState.FORWARDING, LEASE)


async def test_signature_after_the_deadline_is_not_delivered(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """No attempt begins; the record is settled as ``expired`` with the code ``not_delivered``."""
    lease = await claim_granted(store, claim_of(valid_for=LEASE / 2))
    await under_test.advance(LEASE / 2)
    held = await store.record_signature(lease, SUBMISSION)
    assert (held.record.state, held.record.attempts, held.deliverable) == (ChallengeState.SIGNED, 0, False)
    assert await store.begin_forwarding(lease.id) is None
    assert await store.due(10) == [lease.id]
    expired = await store.expire(lease.id)
    assert expired is not None
    assert expired.code == RecordCode.NOT_DELIVERED


@pytest.mark.parametrize("forward", [True, False])
async def test_second_signature_is_refused(store: ChallengeStore, forward: bool) -> None:
    """Each nonce has one signature, even if the backend signs differently each time."""
    lease = await claim_granted(store, claim_of(forward=forward))
    await store.record_signature(lease, SUBMISSION)
    with pytest.raises(ForbiddenMove if forward else LeaseLost):  # without a delivery, the lease has ended
        await store.record_signature(lease, ANOTHER)
    record = await store.get(lease.id)
    assert record is not None
    assert record.signature == SUBMISSION.signature


async def test_release_stores_code_and_ends_the_lease(store: ChallengeStore) -> None:
    """``claimed → released`` with the code of the key backend."""
    lease = await claim_granted(store, claim_of())
    record = await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (record.state, record.code) == (ChallengeState.RELEASED, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert record.leased_until is None
    with pytest.raises(LeaseLost):
        await store.record_signature(lease, SUBMISSION)


async def test_moves_of_forgotten_record_raise_lease_lost(store: ChallengeStore) -> None:
    """A record that a failover forgot is not written again in part."""
    lease = Lease(claim_of().id, 1, LEASE, 0.0)
    with pytest.raises(LeaseLost):
        await store.record_signature(lease, SUBMISSION)
    with pytest.raises(LeaseLost):
        await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    with pytest.raises(LeaseLost):
        await store.defer(lease, RecordCode.CARD_API_BUSY, timedelta(0))
    with pytest.raises(LeaseLost):
        await store.settle(lease, ChallengeState.VERIFIED, None)
    assert await store.get(lease.id) is None
    assert await store.due(10) == []
