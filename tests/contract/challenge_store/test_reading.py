"""``get``, ``find``, ``due`` and ``ping``."""

from __future__ import annotations

from datetime import timedelta

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
    claim_granted,
    claim_of,
    sign,
)


async def test_get_returns_the_record_that_was_written(store: ChallengeStore, other: ChallengeStore) -> None:
    """Another replica reads an equal record."""
    held = await sign(store, claim_of())
    read = await other.get(held.record.id)
    assert read is not None
    assert read.submission is not None
    assert read == held.record


async def test_get_and_find_return_none_before_any_claim(store: ChallengeStore) -> None:
    """Neither by id nor by customer."""
    assert await store.get(claim_of().id) is None
    assert await store.find(CUSTOMER, OWNER) is None


async def test_find_returns_the_newest_record(store: ChallengeStore) -> None:
    """A refreshed challenge hides the previous one, also after the previous one is claimed again."""
    first, second = claim_of("nonce0001"), claim_of("nonce0002", message="b" * 64)
    lease = await claim_granted(store, first)
    await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    await claim_granted(store, second)
    await claim_granted(store, first)
    found = await store.find(CUSTOMER, OWNER)
    assert found is not None
    assert found.id == second.id


async def test_find_needs_customer_owner_and_chain(store: ChallengeStore) -> None:
    """Another customer, another owner and the same owner on another chain find nothing."""
    await claim_granted(store, claim_of())
    assert await store.find("0191b1d6-4a4e-7c8e-9d4d-000000000000", OWNER) is None
    assert await store.find(CUSTOMER, AccountId(ChainId(1), OWNER.address)) is None
    assert await store.find(CUSTOMER, AccountId(ChainId(324), checksum_address("0x" + "11" * 20))) is None


async def test_due_returns_ids_of_all_shards_up_to_the_limit(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """No id twice, none too early."""
    owners = [AccountId(ChainId(324), checksum_address(f"0x{'00' * 19}{n:02x}")) for n in range(70)]
    ids = {(await sign(store, claim_of(owner=owner))).record.id for owner in owners}
    assert await store.due(100) == []
    await under_test.advance(LEASE)
    everything = await store.due(100)
    assert sorted(everything) == sorted(ids)
    some = await store.due(8)
    assert len(some) == len(set(some)) == 8
    assert set(some) <= ids


async def test_taken_over_record_is_due_again_after_its_lease(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Until then no other replica looks at it."""
    held = await sign(store, claim_of())
    await under_test.advance(LEASE)
    assert await store.due(10) == [held.record.id]
    assert await store.begin_forwarding(held.record.id) is not None
    assert await store.due(10) == []
    await under_test.advance(LEASE)
    assert await store.due(10) == [held.record.id]


async def test_every_due_record_can_be_moved(under_test: StoreUnderTest) -> None:
    """Every unsettled state becomes due and is then moved: nothing blocks the index."""
    for state in ChallengeState:
        stores = under_test.emptied()
        store = stores.replica()
        await bring_to(store, state)
        moves = 0
        for _ in range(3):
            await stores.advance(VALID_FOR)
            for challenge_id in await store.due(10):
                held = await store.begin_forwarding(challenge_id)
                if held is None:
                    assert await store.expire(challenge_id) is not None, state
                else:
                    await store.settle(held.lease, ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
                moves += 1
        assert moves == (0 if state.is_final else 1), state


async def test_ping_leaves_nothing_to_find(store: ChallengeStore) -> None:
    """Nothing is due or found afterwards."""
    await store.ping()
    assert await store.due(10) == []
    assert await store.find("probe", OWNER) is None


async def test_negative_pause_is_due_at_once(store: ChallengeStore) -> None:
    """Like a pause of 0."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(seconds=-5))
    assert await store.due(10) == [held.record.id]


async def test_claim_that_was_taken_over_is_not_due_before_its_deadline(
    under_test: StoreUnderTest, store: ChallengeStore, other: ChallengeStore
) -> None:
    """Recovery could do nothing about it, and would pass over others in each round."""
    await claim_granted(store, claim_of())
    await under_test.advance(LEASE)
    await claim_granted(other, claim_of())
    await under_test.advance(LEASE)
    assert await store.due(10) == []
