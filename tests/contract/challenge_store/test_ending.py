"""``settle`` and ``expire``: how a record ends, and that it then stays as it is."""

from __future__ import annotations

import pytest

from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore
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

FINAL = [state for state in ChallengeState if state.is_final]


@pytest.mark.parametrize("state", FINAL)
async def test_a_delivery_is_settled(under_test: StoreUnderTest, store: ChallengeStore, state: ChallengeState) -> None:
    """The body is dropped, for it opens an account; the signature stays; nothing is due any more."""
    held = await sign(store, claim_of())
    record = await store.settle(held.lease, state, RecordCode.CARD_API_BUSY, "00" * 17)
    assert (record.state, record.code, record.superseded_by) == (state, RecordCode.CARD_API_BUSY, "00" * 17)
    assert (record.submission, record.signature, record.leased_until) == (None, SUBMISSION.signature, None)
    assert await store.get(record.id) == record
    await under_test.advance(VALID_FOR)
    assert await store.due(10) == []
    assert await store.expire(record.id) is None


async def test_a_reason_is_optional(store: ChallengeStore) -> None:
    """``verified`` says it all."""
    held = await sign(store, claim_of())
    record = await store.settle(held.lease, ChallengeState.VERIFIED, None)
    assert (record.code, record.superseded_by) == (None, None)


@pytest.mark.parametrize("state", [state for state in ChallengeState if not state.is_final])
async def test_a_delivery_is_settled_by_final_states_only(store: ChallengeStore, state: ChallengeState) -> None:
    """Also where the table has the move, as from ``forwarding`` to ``signed``: that is what ``defer`` is for."""
    held = await sign(store, claim_of())
    with pytest.raises(ForbiddenMove):
        await store.settle(held.lease, state, None)
    assert await store.get(held.record.id) == held.record


@pytest.mark.parametrize(
    ("state", "forward", "code"),
    [
        (ChallengeState.CLAIMED, True, RecordCode.NOT_SIGNED),
        (ChallengeState.RELEASED, True, RecordCode.NOT_SIGNED),
        (ChallengeState.SIGNED, False, RecordCode.NOT_FORWARDED),
    ],
)
async def test_what_nobody_holds_expires_with_its_deadline(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    state: ChallengeState,
    forward: bool,
    code: str,
) -> None:
    """Not before; then it is due, and ends with the reason."""
    lease = await bring_to(store, state, forward=forward)
    await under_test.advance(VALID_FOR - LEASE)
    assert await store.expire(lease.id) is None
    assert await store.due(10) == []
    await under_test.advance(LEASE)
    assert await store.due(10) == [lease.id]
    expired = await store.expire(lease.id)
    assert expired is not None
    assert (expired.state, expired.code, expired.submission) == (ChallengeState.EXPIRED, code, None)
    assert await store.due(10) == []
    assert await store.expire(lease.id) is None


async def test_a_signature_that_was_to_be_delivered_and_never_sent_expires_as_not_delivered(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """``forward`` came late, and nobody got to it in time."""
    held = await sign(store, claim_of(forward=False))
    await store.claim(claim_of(forward=True))
    await under_test.advance(VALID_FOR)
    expired = await store.expire(held.record.id)
    assert expired is not None
    assert (expired.code, expired.signature) == (RecordCode.NOT_DELIVERED, SUBMISSION.signature)


async def test_a_claim_in_work_does_not_expire_under_its_holder(
    under_test: StoreUnderTest,
    store: ChallengeStore,
) -> None:
    """Past the deadline it ends with its lease, not before, and is due only then."""
    lease = await claim_mine(store, claim_of(valid_for=LEASE / 2))
    await under_test.advance(LEASE / 2)
    assert await store.expire(lease.id) is None
    assert await store.due(10) == []
    await under_test.advance(LEASE / 2)
    assert await store.due(10) == [lease.id]
    assert await store.expire(lease.id) is not None


@pytest.mark.parametrize("state", [ChallengeState.SIGNED, ChallengeState.FORWARDING])
async def test_what_was_attempted_does_not_expire_unasked(
    under_test: StoreUnderTest,
    store: ChallengeStore,
    state: ChallengeState,
) -> None:
    """Somebody has to find out what became of the attempt first."""
    lease = await bring_to(store, state)
    await under_test.advance(VALID_FOR + LEASE)
    assert await store.expire(lease.id) is None
    assert await store.due(10) == [lease.id]


async def test_what_is_unknown_does_not_expire(store: ChallengeStore) -> None:
    """There is nothing to end."""
    assert await store.expire(claim_of().id) is None
