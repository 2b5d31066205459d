"""``settle`` and ``expire``: how a record becomes final, and that it does not change then."""

from __future__ import annotations

import pytest

from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore
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

FINAL = [state for state in ChallengeState if state.is_final]


async def test_settle_writes_final_state_and_removes_body(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """The body is removed, because it is a live credential; the signature stays; nothing is due any more."""
    records = []
    for state in FINAL:
        held = await sign(store, claim_of(f"nonce-{state.value}"))
        record = await store.settle(held.lease, state, RecordCode.CARD_API_BUSY, "00" * 17)
        assert (record.state, record.code, record.superseded_by) == (state, RecordCode.CARD_API_BUSY, "00" * 17)
        assert (record.submission, record.signature, record.leased_until) == (None, SUBMISSION.signature, None), state
        assert await store.get(record.id) == record, state
        records.append(record)
    await under_test.advance(VALID_FOR)
    assert await store.due(10) == []
    for record in records:
        assert await store.expire(record.id) is None, record.state


@pytest.mark.parametrize("status", [*CustomerStatus, None])
async def test_settle_stores_the_customers_status(store: ChallengeStore, status: CustomerStatus | None) -> None:
    """It was read last by the replica that settles."""
    held = await sign(store, claim_of())
    record = await store.settle(held.lease, ChallengeState.VERIFIED, None, upstream_status=status)
    assert record.upstream_status is status
    assert await store.get(record.id) == record


async def test_settle_without_code(store: ChallengeStore) -> None:
    """``verified`` needs no code."""
    held = await sign(store, claim_of())
    record = await store.settle(held.lease, ChallengeState.VERIFIED, None)
    assert (record.code, record.superseded_by) == (None, None)


async def test_settle_refuses_states_that_are_not_final(store: ChallengeStore) -> None:
    """Also if the table has the move, as from ``forwarding`` to ``signed``: that is what ``defer`` is for."""
    held = await sign(store, claim_of())
    for state in set(ChallengeState) - set(FINAL):
        with pytest.raises(ForbiddenMove):
            await store.settle(held.lease, state, None)
        assert await store.get(held.record.id) == held.record, state


async def test_record_without_lease_expires_at_its_deadline(under_test: StoreUnderTest) -> None:
    """Not before; then it is due, and ends with the code."""
    for state, forward, code in (
        (ChallengeState.CLAIMED, True, RecordCode.NOT_SIGNED),
        (ChallengeState.RELEASED, True, RecordCode.NOT_SIGNED),
        (ChallengeState.SIGNED, False, RecordCode.NOT_FORWARDED),
    ):
        stores = under_test.emptied()
        store = stores.replica()
        lease = await bring_to(store, state, forward=forward)
        await stores.advance(VALID_FOR - LEASE)
        assert await store.expire(lease.id) is None, state
        assert await store.due(10) == [], state
        await stores.advance(LEASE)
        assert await store.due(10) == [lease.id], state
        expired = await store.expire(lease.id)
        assert expired is not None, state
        assert (expired.state, expired.code, expired.submission) == (ChallengeState.EXPIRED, code, None)
        assert await store.due(10) == [], state
        assert await store.expire(lease.id) is None, state


async def test_signature_that_was_never_sent_expires_as_not_delivered(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """``forward`` was turned on after signing, and no replica began an attempt in time."""
    held = await sign(store, claim_of(forward=False))
    await store.claim(claim_of(forward=True))
    await under_test.advance(VALID_FOR)
    expired = await store.expire(held.record.id)
    assert expired is not None
    assert (expired.code, expired.signature) == (RecordCode.NOT_DELIVERED, SUBMISSION.signature)


async def test_claimed_record_does_not_expire_under_live_lease(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """After the deadline it expires when its lease ends, and is due only then."""
    lease = await claim_granted(store, claim_of(valid_for=LEASE / 2))
    await under_test.advance(LEASE / 2)
    assert await store.expire(lease.id) is None
    assert await store.due(10) == []
    await under_test.advance(LEASE / 2)
    assert await store.due(10) == [lease.id]
    assert await store.expire(lease.id) is not None


async def test_attempted_delivery_does_not_expire(under_test: StoreUnderTest, store: ChallengeStore) -> None:
    """The card API has to be asked first what became of the attempt."""
    states = (ChallengeState.SIGNED, ChallengeState.FORWARDING)
    ids = [(await bring_to(store, state, nonce=f"nonce-{state.value}")).id for state in states]
    await under_test.advance(VALID_FOR + LEASE)
    assert [await store.expire(challenge_id) for challenge_id in ids] == [None, None]
    assert sorted(await store.due(10)) == sorted(ids)


async def test_expire_of_unknown_challenge_returns_none(store: ChallengeStore) -> None:
    """There is nothing to expire."""
    assert await store.expire(claim_of().id) is None
