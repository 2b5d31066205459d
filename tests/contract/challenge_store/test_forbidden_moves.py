"""Every move from every state: what ``MOVES`` and the leases do not allow is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore, Lease
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import MOVES, ChallengeState, RecordCode
from tests.support.challenge_stores import LEASE, SUBMISSION, VALID_FOR, StoreUnderTest, bring_to, claim_of

_S = ChallengeState
Move = Callable[[ChallengeStore, Lease], Awaitable[object]]

SOURCE_FOR_MOVE: Final = {
    "record_signature": _S.CLAIMED,
    "release": _S.CLAIMED,
    "defer": _S.FORWARDING,
    **{f"settle-{state.value}": _S.FORWARDING for state in _S if state.is_final},
}
LEASED: Final = {state for state in _S if state in MOVES[state]}


def _call(name: str) -> Move:
    match name.partition("-"):
        case ("record_signature", _, _):
            return lambda store, lease: store.record_signature(lease, SUBMISSION)
        case ("release", _, _):
            return lambda store, lease: store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
        case ("defer", _, _):
            return lambda store, lease: store.defer(lease, RecordCode.CARD_API_BUSY, timedelta(0))
        case (_, _, state):
            return lambda store, lease: store.settle(lease, ChallengeState(state), None)


def _every_call(nonce: str) -> dict[str, Move]:
    """All that a replica can ask of one record, sensible or not."""
    return {
        "claim": lambda store, _: store.claim(claim_of(nonce)),
        "begin_forwarding": lambda store, lease: store.begin_forwarding(lease.id),
        "expire": lambda store, lease: store.expire(lease.id),
        **{name: _call(name) for name in ("record_signature", "release", "defer")},
        **{f"settle-{state.value}": _call(f"settle-{state.value}") for state in _S},
    }


async def _states_after(under_test: StoreUnderTest, state: ChallengeState, later: timedelta) -> set[ChallengeState]:
    """Try every call on a record of its own in ``state``, held back and not, so much later; gives where it came to."""
    store = under_test.replica()
    tries: list[tuple[Lease, Move]] = []
    for forward in (True, False) if state in {_S.CLAIMED, _S.RELEASED, _S.SIGNED} else (True,):
        for number, name in enumerate(_every_call("")):
            nonce = f"nonce{number:02}{forward}{later.seconds}"
            tries.append((await bring_to(store, state, nonce=nonce, forward=forward), _every_call(nonce)[name]))
    await under_test.advance(later)
    targets = set()
    for lease, move in tries:
        before = await store.get(lease.id)
        with suppress(ForbiddenMove, LeaseLost):
            await move(store, lease)
        after = await store.get(lease.id)
        assert before is not None
        assert after is not None
        if replace(after, forward=before.forward) != before:
            targets.add(after.state)
    return targets


@pytest.mark.parametrize("state", _S)
async def test_the_moves_that_can_be_made_are_those_of_the_table(
    under_test: StoreUnderTest,
    state: ChallengeState,
) -> None:
    """All pairs of states: every call at once, when the lease is over, and when the deadline has passed.

    One call makes two moves: ``record_signature`` goes on from ``signed`` where the challenge is to be delivered.
    """
    made: set[ChallengeState] = set()
    for later in (timedelta(0), LEASE, VALID_FOR):
        made |= await _states_after(under_test, state, later)
    assert made == MOVES[state] | (MOVES[_S.SIGNED] & {_S.FORWARDING} if state is _S.CLAIMED else set())


@pytest.mark.parametrize("state", _S)
@pytest.mark.parametrize("name", SOURCE_FOR_MOVE)
async def test_a_move_is_made_from_its_own_state_only(store: ChallengeStore, name: str, state: ChallengeState) -> None:
    """With the record's own fencing token: forbidden from another state, and refused as lease lost without a lease."""
    lease = await bring_to(store, state)
    before = await store.get(lease.id)
    move = _call(name)
    if state is SOURCE_FOR_MOVE[name]:
        await move(store, lease)
        assert await store.get(lease.id) != before
        return
    with pytest.raises(ForbiddenMove if state in LEASED else LeaseLost):
        await move(store, lease)
    assert await store.get(lease.id) == before


@pytest.mark.parametrize("state", _S)
@pytest.mark.parametrize("name", SOURCE_FOR_MOVE)
@pytest.mark.parametrize("off_by", [-1, 1])
async def test_a_move_under_another_fence_is_refused_from_every_state(
    store: ChallengeStore,
    name: str,
    state: ChallengeState,
    off_by: int,
) -> None:
    """A stale token, and one that nobody ever gave out, move nothing."""
    lease = await bring_to(store, state)
    before = await store.get(lease.id)
    with pytest.raises(LeaseLost):
        await _call(name)(store, replace(lease, fencing_token=lease.fencing_token + off_by))
    assert await store.get(lease.id) == before
