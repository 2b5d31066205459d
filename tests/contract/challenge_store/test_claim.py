"""``claim``: a nonce is taken once, for one message of one customer, by one holder at a time."""

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
    bring_to,
    claim_mine,
    claim_of,
    fails_saying,
    sign,
)

OTHER_MESSAGE = "b" * 64
OTHER_CUSTOMER = "0191b1d6-4a4e-7c8e-9d4d-000000000000"


async def test_first_claim_is_mine_and_holds_all_that_was_claimed(store: ChallengeStore) -> None:
    """The record of a fresh claim repeats the claim to the microsecond and has nothing else yet."""
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


async def test_the_same_message_is_held_while_its_lease_lives(store: ChallengeStore, other: ChallengeStore) -> None:
    """Who asks second for the same message waits: he gets the record and no lease."""
    await claim_mine(store, claim_of())
    second = await other.claim(claim_of())
    assert (second.outcome, second.lease) == (ClaimOutcome.LEASED_ELSEWHERE, None)
    assert second.record.state is ChallengeState.CLAIMED


async def test_fifty_concurrent_claims_give_one_holder(under_test: StoreUnderTest) -> None:
    """However many ask at once, one signs."""
    claim = claim_of()
    answers = await asyncio.gather(*(under_test.replica().claim(claim) for _ in range(50)))
    assert Counter(answer.outcome for answer in answers) == {ClaimOutcome.GRANTED: 1, ClaimOutcome.LEASED_ELSEWHERE: 49}


async def test_a_lease_that_has_ended_is_taken_over(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    other: ChallengeStore,
) -> None:
    """The successor gets a higher fencing_token, and the old holder can write nothing any more."""
    old = await claim_mine(store, claim_of())
    await under_test.advance(LEASE)
    new = await claim_mine(other, claim_of())
    assert new.fencing_token > old.fencing_token
    with pytest.raises(LeaseLost):
        await store.record_signature(old, SUBMISSION)
    with pytest.raises(LeaseLost):
        await store.release(old, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (await other.record_signature(new, SUBMISSION)).record.state is ChallengeState.FORWARDING


async def test_a_takeover_keeps_the_deadline_and_the_birth_of_the_record(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """A replica with other settings cannot stretch a deadline by claiming again."""
    lease = await claim_mine(store, claim_of(valid_for=timedelta(minutes=5)))
    released = await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    again = await store.claim(claim_of(valid_for=timedelta(minutes=50)))
    assert again.outcome is ClaimOutcome.GRANTED
    assert (again.record.expires_at, again.record.created_at) == (released.expires_at, released.created_at)
    assert again.record.code is None


async def test_a_released_nonce_is_free_for_the_same_message(store: ChallengeStore, other: ChallengeStore) -> None:
    """A key backend that was down costs no challenge."""
    old = await claim_mine(store, claim_of())
    await store.release(old, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (await claim_mine(other, claim_of())).fencing_token > old.fencing_token


@pytest.mark.parametrize("state", ChallengeState)
async def test_another_message_with_the_nonce_is_refused_in_every_state(
    store: ChallengeStore,
    state: ChallengeState,
) -> None:
    """``nonce_reused``, with the record that holds the nonce; nothing changes, not even ``forward``."""
    lease = await bring_to(store, state, forward=state not in {ChallengeState.CLAIMED, ChallengeState.RELEASED})
    before = await store.get(lease.id)
    answer = await store.claim(claim_of(message=OTHER_MESSAGE, customer_id=OTHER_CUSTOMER))
    assert (answer.outcome, answer.lease) == (ClaimOutcome.NONCE_REUSED, None)
    assert answer.record == before == await store.get(lease.id)


@pytest.mark.parametrize("state", ChallengeState)
async def test_the_same_message_for_another_customer_is_refused_in_every_state(
    store: ChallengeStore,
    state: ChallengeState,
) -> None:
    """``challenge_bound_elsewhere``: one proof, one customer; nothing changes, not even ``forward``."""
    lease = await bring_to(store, state, forward=state not in {ChallengeState.CLAIMED, ChallengeState.RELEASED})
    before = await store.get(lease.id)
    answer = await store.claim(claim_of(customer_id=OTHER_CUSTOMER))
    assert (answer.outcome, answer.lease) == (ClaimOutcome.OTHER_CUSTOMER, None)
    assert answer.record == before == await store.get(lease.id)


@pytest.mark.parametrize("state", [state for state in ChallengeState if not state.is_unsigned])
async def test_what_is_signed_is_known(store: ChallengeStore, state: ChallengeState) -> None:
    """Past its signing the same message gets its record, whatever became of it, and is never signed again."""
    lease = await bring_to(store, state)
    before = await store.get(lease.id)
    answer = await store.claim(claim_of())
    assert (answer.outcome, answer.lease, answer.record) == (ClaimOutcome.PAST_SIGNING, None, before)


async def test_forward_is_turned_on_under_another_holder(store: ChallengeStore, other: ChallengeStore) -> None:
    """Who is told to wait has his wish heard: the signature goes straight on to delivery."""
    lease = await claim_mine(store, claim_of(forward=False))
    answer = await other.claim(claim_of(forward=True))
    assert (answer.outcome, answer.record.forward) == (ClaimOutcome.LEASED_ELSEWHERE, True)
    held = await store.record_signature(lease, SUBMISSION)
    assert (held.record.state, held.record.forward) == (ChallengeState.FORWARDING, True)


async def test_forward_is_turned_on_after_the_signing(store: ChallengeStore, other: ChallengeStore) -> None:
    """A signature that was only stored becomes deliverable, and is due at once."""
    held = await sign(store, claim_of(forward=False))
    assert await store.begin_forwarding(held.record.id) is None
    assert await store.due(10) == []
    answer = await other.claim(claim_of(forward=True))
    assert (answer.outcome, answer.record.forward) == (ClaimOutcome.PAST_SIGNING, True)
    assert answer.record.state is ChallengeState.SIGNED
    assert await store.due(10) == [held.record.id]
    begun = await store.begin_forwarding(held.record.id)
    assert begun is not None
    assert (begun.record.attempts, begun.deliverable) == (1, True)


@pytest.mark.parametrize("state", [ChallengeState.CLAIMED, ChallengeState.RELEASED, ChallengeState.SIGNED])
async def test_forward_is_turned_on_by_nobody_who_does_not_ask_for_it(
    store: ChallengeStore,
    state: ChallengeState,
) -> None:
    """Asking again for a signature that is only to be stored leaves it so."""
    lease = await bring_to(store, state, forward=False)
    assert not (await store.claim(claim_of(forward=False))).record.forward
    record = await store.get(lease.id)
    assert record is not None
    assert not record.forward


@pytest.mark.parametrize("state", [ChallengeState.CLAIMED, ChallengeState.RELEASED, ChallengeState.SIGNED])
async def test_forward_is_never_turned_off(store: ChallengeStore, state: ChallengeState) -> None:
    """A later wish not to deliver does not take back an earlier one to deliver."""
    lease = await bring_to(store, state)
    answer = await store.claim(claim_of(forward=False))
    assert answer.record.forward
    record = await store.get(lease.id)
    assert record is not None
    assert record.forward


async def test_a_final_record_is_not_written_to(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """A record that expired unforwarded keeps saying so, whoever would like it forwarded now."""
    held = await sign(store, claim_of(forward=False, valid_for=timedelta(minutes=1)))
    await under_test.advance(timedelta(minutes=1))
    before = await store.expire(held.record.id)
    answer = await store.claim(claim_of(forward=True))
    assert (answer.outcome, answer.record) == (ClaimOutcome.PAST_SIGNING, before)
    assert not answer.record.forward


async def test_the_nonce_is_spent_until_the_retention_ends(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """The guarantee holds for the retention, counted from the first claim; behind it the record is gone."""
    claim = claim_of(valid_for=timedelta(minutes=1))
    await sign(store, claim)
    await under_test.advance(RETENTION - timedelta(minutes=1))
    assert (await store.claim(claim_of(message=OTHER_MESSAGE))).outcome is ClaimOutcome.NONCE_REUSED
    await under_test.advance(timedelta(minutes=1))
    assert await store.get(claim.id) is None
    assert await store.find(CUSTOMER, OWNER) is None
    another = claim_of(message=OTHER_MESSAGE, valid_for=RETENTION + VALID_FOR)
    assert (await store.claim(another)).outcome is ClaimOutcome.GRANTED


async def test_a_challenge_that_is_over_is_not_begun(store: ChallengeStore) -> None:
    """By the store's clock, whatever ours says: a record of it may have been there, and be forgotten."""
    claim = claim_of(valid_for=-timedelta(seconds=1))
    await fails_saying("By the store's clock the challenge is over", store.claim(claim))
    assert await store.get(claim.id) is None


async def test_one_nonce_is_free_for_each_owner(store: ChallengeStore) -> None:
    """The scope of a nonce is its owner: two owners do not stand in each other's way."""
    another = AccountId(ChainId(324), "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")
    await claim_mine(store, claim_of())
    await claim_mine(store, claim_of(owner=another, message=OTHER_MESSAGE))
