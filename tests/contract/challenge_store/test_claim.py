"""``claim``: a nonce is claimed once, for one message of one customer, under one lease at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore, ClaimOutcome
from signer.domain.errors import LeaseLost
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    OWNER,
    RETENTION,
    SUBMISSION,
    VALID_FOR,
    StoreUnderTest,
    assert_unavailable,
    bring_to,
    claim_granted,
    claim_of,
    sign,
)

OTHER_MESSAGE = "b" * 64
NOT_DELIVERED = (ChallengeState.CLAIMED, ChallengeState.RELEASED, ChallengeState.SIGNED)
OTHER_CUSTOMER = "0191b1d6-4a4e-7c8e-9d4d-000000000000"


async def test_first_claim_is_granted_and_stores_the_claim(store: ChallengeStore) -> None:
    """The record repeats the claim to the microsecond and has nothing else yet."""
    claim = claim_of()
    claimed = await store.claim(claim)
    record = claimed.record
    assert claimed.outcome is ClaimOutcome.GRANTED
    assert (record.id, record.customer_id, record.owner) == (claim.id, CUSTOMER, OWNER)
    assert (record.message_hash, record.forward) == (claim.message_hash, True)
    assert (record.issued_at, record.expires_at) == (claim.issued_at, claim.expires_at)
    assert record.state is ChallengeState.CLAIMED
    assert (record.code, record.submission, record.signature, record.superseded_by) == (None, None, None, None)
    assert (record.attempts, record.first_attempt_at, record.fencing_token) == (0, None, 1)
    assert record.created_at == record.updated_at
    assert record.leased_until == record.created_at + LEASE
    assert claimed.lease is not None
    assert (claimed.lease.id, claimed.lease.fencing_token, claimed.lease.remaining) == (claim.id, 1, LEASE)


async def test_second_claim_gets_no_lease_while_first_is_live(store: ChallengeStore, other: ChallengeStore) -> None:
    """It gets the record."""
    await claim_granted(store, claim_of())
    second = await other.claim(claim_of())
    assert (second.outcome, second.lease) == (ClaimOutcome.LEASED_ELSEWHERE, None)
    assert second.record.state is ChallengeState.CLAIMED


async def test_one_of_fifty_concurrent_claims_is_granted(under_test: StoreUnderTest) -> None:
    """However many replicas claim at once, one signs."""
    claim = claim_of()
    results = await asyncio.gather(*(under_test.replica().claim(claim) for _ in range(50)))
    assert Counter(result.outcome for result in results) == {ClaimOutcome.GRANTED: 1, ClaimOutcome.LEASED_ELSEWHERE: 49}


async def test_claim_takes_over_after_lease_ended(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    other: ChallengeStore,
) -> None:
    """The new lease has a higher fencing token, and the old one moves nothing any more."""
    old = await claim_granted(store, claim_of())
    await under_test.advance(LEASE)
    new = await claim_granted(other, claim_of())
    assert new.fencing_token > old.fencing_token
    with pytest.raises(LeaseLost):
        await store.record_signature(old, SUBMISSION)
    with pytest.raises(LeaseLost):
        await store.release(old, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (await other.record_signature(new, SUBMISSION)).record.state is ChallengeState.FORWARDING


async def test_takeover_keeps_deadline_and_creation_instant(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """A replica with other settings cannot extend a deadline by claiming again."""
    lease = await claim_granted(store, claim_of(valid_for=timedelta(minutes=5)))
    released = await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    again = await store.claim(claim_of(valid_for=timedelta(minutes=50)))
    assert again.outcome is ClaimOutcome.GRANTED
    assert (again.record.expires_at, again.record.created_at) == (released.expires_at, released.created_at)
    assert again.record.code is None


async def test_released_nonce_can_be_claimed_for_same_message(store: ChallengeStore, other: ChallengeStore) -> None:
    """A key backend that was down costs no challenge."""
    old = await claim_granted(store, claim_of())
    await store.release(old, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (await claim_granted(other, claim_of())).fencing_token > old.fencing_token


async def test_other_message_with_same_nonce_is_refused_in_every_state(store: ChallengeStore) -> None:
    """``NONCE_REUSED``, with the record that has the nonce; nothing changes, not even ``forward``."""
    for state in ChallengeState:
        nonce, forward = f"nonce-{state.value}", not state.is_unsigned
        lease = await bring_to(store, state, nonce=nonce, forward=forward)
        before = await store.get(lease.id)
        result = await store.claim(claim_of(nonce, message=OTHER_MESSAGE, customer_id=OTHER_CUSTOMER))
        assert (result.outcome, result.lease) == (ClaimOutcome.NONCE_REUSED, None), state
        assert result.record == before == await store.get(lease.id), state


async def test_other_customer_is_refused_in_every_state(store: ChallengeStore) -> None:
    """``OTHER_CUSTOMER``: one proof, one customer; nothing changes, not even ``forward``."""
    for state in ChallengeState:
        nonce, forward = f"nonce-{state.value}", not state.is_unsigned
        lease = await bring_to(store, state, nonce=nonce, forward=forward)
        before = await store.get(lease.id)
        result = await store.claim(claim_of(nonce, customer_id=OTHER_CUSTOMER))
        assert (result.outcome, result.lease) == (ClaimOutcome.OTHER_CUSTOMER, None), state
        assert result.record == before == await store.get(lease.id), state


async def test_claim_after_signing_returns_the_record(store: ChallengeStore) -> None:
    """The same message is never signed again, whatever its state."""
    for state in ChallengeState:
        if state.is_unsigned:
            continue
        nonce = f"nonce-{state.value}"
        lease = await bring_to(store, state, nonce=nonce)
        before = await store.get(lease.id)
        result = await store.claim(claim_of(nonce))
        assert (result.outcome, result.lease, result.record) == (ClaimOutcome.PAST_SIGNING, None, before), state


async def test_second_claim_turns_forward_on_before_signing(store: ChallengeStore, other: ChallengeStore) -> None:
    """The signature then goes straight on to delivery."""
    lease = await claim_granted(store, claim_of(forward=False))
    result = await other.claim(claim_of(forward=True))
    assert (result.outcome, result.record.forward) == (ClaimOutcome.LEASED_ELSEWHERE, True)
    held = await store.record_signature(lease, SUBMISSION)
    assert (held.record.state, held.record.forward) == (ChallengeState.FORWARDING, True)


async def test_claim_turns_forward_on_after_signing(store: ChallengeStore, other: ChallengeStore) -> None:
    """A signature that was only stored becomes deliverable and is due at once."""
    held = await sign(store, claim_of(forward=False))
    assert await store.begin_forwarding(held.record.id) is None
    assert await store.due(10) == []
    result = await other.claim(claim_of(forward=True))
    assert (result.outcome, result.record.forward) == (ClaimOutcome.PAST_SIGNING, True)
    assert result.record.state is ChallengeState.SIGNED
    assert await store.due(10) == [held.record.id]
    begun = await store.begin_forwarding(held.record.id)
    assert begun is not None
    assert (begun.record.attempts, begun.deliverable) == (1, True)


async def test_claim_without_forward_leaves_it_off(store: ChallengeStore) -> None:
    """Claiming again a signature that is only stored changes nothing."""
    for state in NOT_DELIVERED:
        nonce = f"nonce-{state.value}"
        lease = await bring_to(store, state, nonce=nonce, forward=False)
        assert not (await store.claim(claim_of(nonce, forward=False))).record.forward, state
        record = await store.get(lease.id)
        assert record is not None
        assert not record.forward, state


async def test_claim_without_forward_does_not_turn_it_off(store: ChallengeStore) -> None:
    """A later claim does not take back a delivery."""
    for state in NOT_DELIVERED:
        nonce = f"nonce-{state.value}"
        lease = await bring_to(store, state, nonce=nonce)
        assert (await store.claim(claim_of(nonce, forward=False))).record.forward, state
        record = await store.get(lease.id)
        assert record is not None
        assert record.forward, state


async def test_claim_changes_nothing_in_final_record(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """A record that expired without delivery keeps ``forward`` off."""
    held = await sign(store, claim_of(forward=False, valid_for=timedelta(minutes=1)))
    await under_test.advance(timedelta(minutes=1))
    before = await store.expire(held.record.id)
    result = await store.claim(claim_of(forward=True))
    assert (result.outcome, result.record) == (ClaimOutcome.PAST_SIGNING, before)
    assert not result.record.forward


async def test_nonce_is_spent_until_retention_ends(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """The retention counts from the first claim; after it the record is gone."""
    claim = claim_of(valid_for=timedelta(minutes=1))
    await sign(store, claim)
    await under_test.advance(RETENTION - timedelta(minutes=1))
    assert (await store.claim(claim_of(message=OTHER_MESSAGE))).outcome is ClaimOutcome.NONCE_REUSED
    await under_test.advance(timedelta(minutes=1))
    assert await store.get(claim.id) is None
    assert await store.find(CUSTOMER, OWNER) is None
    another = claim_of(message=OTHER_MESSAGE, valid_for=RETENTION + VALID_FOR)
    assert (await store.claim(another)).outcome is ClaimOutcome.GRANTED


async def test_expired_challenge_without_record_is_not_claimed(store: ChallengeStore) -> None:
    """By the store's clock: there may have been a record of it, which was forgotten."""
    claim = claim_of(valid_for=-timedelta(seconds=1))
    await assert_unavailable("expired by the store's clock", store.claim(claim))
    assert await store.get(claim.id) is None


async def test_same_nonce_can_be_claimed_for_each_owner(store: ChallengeStore) -> None:
    """The scope of a nonce is its owner."""
    another = AccountId(ChainId(324), "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")
    await claim_granted(store, claim_of())
    await claim_granted(store, claim_of(owner=another, message=OTHER_MESSAGE))
