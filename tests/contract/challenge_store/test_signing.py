"""``record_signature`` and ``release``: what the holder of a claim may do with it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore, Lease
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import Submission
from tests.support.challenge_stores import LEASE, SUBMISSION, StoreUnderTest, claim_mine, claim_of, sign

ANOTHER = Submission(b'{"another":"body"}', "another proof")


async def test_a_signature_to_be_delivered_goes_on_to_forwarding(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Recorded, and its first attempt begun, in one step: the lease starts anew under the same fence."""
    lease = await claim_mine(store, claim_of())
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


async def test_a_signature_to_be_kept_is_signed_and_free(store: ChallengeStore) -> None:
    """With ``forward`` off nothing is begun, and the lease returned is worth nothing."""
    held = await sign(store, claim_of(forward=False))
    assert held.record.state is ChallengeState.SIGNED
    assert (held.record.attempts, held.record.first_attempt_at, held.record.leased_until) == (0, None, None)
    assert held.record.is_settled
    assert held.lease.remaining == timedelta(0)
    with pytest.raises(LeaseLost):
        await store.settle(held.lease, ChallengeState.VERIFIED, None)


async def test_a_holder_may_record_after_his_lease_while_nobody_took_over(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """A slow key costs nothing: with the fence unchanged nobody else can have signed."""
    lease = await claim_mine(store, claim_of())
    await under_test.advance(LEASE * 2)
    held = await store.record_signature(lease, SUBMISSION)
    assert (held.record.state, held.lease.remaining) == (ChallengeState.FORWARDING, LEASE)


async def test_a_signature_after_the_deadline_is_kept_and_not_sent(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """No attempt is begun past the deadline; the record ends as ``not_delivered``."""
    lease = await claim_mine(store, claim_of(valid_for=LEASE / 2))
    await under_test.advance(LEASE / 2)
    held = await store.record_signature(lease, SUBMISSION)
    assert (held.record.state, held.record.attempts, held.deliverable) == (ChallengeState.SIGNED, 0, False)
    assert await store.begin_forwarding(lease.id) is None
    assert await store.due(10) == [lease.id]
    expired = await store.expire(lease.id)
    assert expired is not None
    assert expired.code == RecordCode.NOT_DELIVERED


@pytest.mark.parametrize("forward", [True, False])
async def test_a_second_signature_is_refused(store: ChallengeStore, forward: bool) -> None:
    """One signature is released for a nonce, also by a backend that signs differently each time."""
    lease = await claim_mine(store, claim_of(forward=forward))
    await store.record_signature(lease, SUBMISSION)
    with pytest.raises(ForbiddenMove if forward else LeaseLost):
        await store.record_signature(lease, ANOTHER)
    record = await store.get(lease.id)
    assert record is not None
    assert record.signature == SUBMISSION.signature


async def test_a_released_claim_says_why_and_is_free(store: ChallengeStore) -> None:
    """``claimed → released`` with the backend's code; the lease is over."""
    lease = await claim_mine(store, claim_of())
    record = await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (record.state, record.code) == (ChallengeState.RELEASED, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert record.leased_until is None
    with pytest.raises(LeaseLost):
        await store.record_signature(lease, SUBMISSION)


async def test_a_lease_on_nothing_is_lost(store: ChallengeStore) -> None:
    """A record that is gone, as after a failover that forgot it, is not written again in part."""
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
