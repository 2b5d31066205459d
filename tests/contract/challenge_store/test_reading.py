"""``get``, ``find``, ``due`` and ``ping``."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore
from signer.domain.ethereum import AccountId, ChainId, checksum_address
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    OWNER,
    VALID_FOR,
    StoreUnderTest,
    bring_to,
    claim_mine,
    claim_of,
    sign,
)


async def test_a_record_reads_as_it_was_answered(store: ChallengeStore, other: ChallengeStore) -> None:
    """What one replica wrote another reads, equal in every field."""
    held = await sign(store, claim_of())
    read = await other.get(held.record.id)
    assert read is not None
    assert read.submission is not None
    assert read == held.record


async def test_what_was_never_claimed_is_unknown(store: ChallengeStore) -> None:
    """Neither by id nor by customer."""
    assert await store.get(claim_of().id) is None
    assert await store.find(CUSTOMER, OWNER) is None


async def test_the_newest_record_of_a_customer_is_found(store: ChallengeStore) -> None:
    """A refreshed challenge hides the one before, and taking the old one up again does not bring it back."""
    first, second = claim_of("nonce0001"), claim_of("nonce0002", message="b" * 64)
    lease = await claim_mine(store, first)
    await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    await claim_mine(store, second)
    await claim_mine(store, first)
    found = await store.find(CUSTOMER, OWNER)
    assert found is not None
    assert found.id == second.id


async def test_a_record_is_found_by_its_customer_and_its_owner_on_its_chain(store: ChallengeStore) -> None:
    """Another customer, another owner and the same owner on another chain find nothing."""
    await claim_mine(store, claim_of())
    assert await store.find("0191b1d6-4a4e-7c8e-9d4d-000000000000", OWNER) is None
    assert await store.find(CUSTOMER, AccountId(ChainId(1), OWNER.address)) is None
    assert await store.find(CUSTOMER, AccountId(ChainId(324), checksum_address("0x" + "11" * 20))) is None


async def test_what_is_due_is_named_from_all_shards_up_to_the_limit(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Every shard is walked; a limit is kept; no id comes twice; nothing is due early."""
    owners = [AccountId(ChainId(324), checksum_address(f"0x{'00' * 19}{n:02x}")) for n in range(70)]
    ids = {(await sign(store, claim_of(owner=owner))).record.id for owner in owners}
    assert await store.due(100) == []
    await under_test.advance(LEASE)
    everything = await store.due(100)
    assert sorted(everything) == sorted(ids)
    some = await store.due(8)
    assert len(some) == len(set(some)) == 8
    assert set(some) <= ids


async def test_what_is_taken_is_due_again_only_after_its_lease(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """So replicas do not run after each other."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE)
    assert await store.due(10) == [held.record.id]
    assert await store.begin_forwarding(held.record.id) is not None
    assert await store.due(10) == []
    await under_test.advance(LEASE)
    assert await store.due(10) == [held.record.id]


@pytest.mark.parametrize("state", ChallengeState)
async def test_whatever_is_due_can_be_moved(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    state: ChallengeState,
) -> None:
    """Nothing stays at the head of the index for ever: every unsettled state becomes due, and is moved then."""
    await bring_to(store, state)
    moves = 0
    for _ in range(3):
        await under_test.advance(VALID_FOR)
        for name in await store.due(10):
            held = await store.begin_forwarding(name)
            if held is None:
                assert await store.expire(name) is not None
            else:
                await store.settle(held.lease, ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
            moves += 1
    assert moves == (0 if state.is_final else 1)


async def test_a_store_that_takes_writes_answers_a_ping(store: ChallengeStore) -> None:
    """It returns, and leaves nothing to be found or done."""
    await store.ping()
    assert await store.due(10) == []
    assert await store.find("probe", OWNER) is None


async def test_a_pause_of_nothing_is_due_at_once(store: ChallengeStore) -> None:
    """And a negative one is nothing."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(seconds=-5))
    assert await store.due(10) == [held.record.id]
