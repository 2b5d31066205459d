"""Every move from every state: what ``MOVES`` and the leases do not allow is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore, Lease
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import MOVES, ChallengeState
from tests.challenge_stores import SUBMISSION, bring_to

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
            return lambda store, lease: store.release(lease, "a_reason")
        case ("defer", _, _):
            return lambda store, lease: store.defer(lease, "a_reason", timedelta(0))
        case (_, _, state):
            return lambda store, lease: store.settle(lease, ChallengeState(state), None)


@pytest.mark.parametrize("state", _S)
@pytest.mark.parametrize("name", SOURCE_FOR_MOVE)
async def test_a_move_is_made_from_its_own_state_only(store: ChallengeStore, name: str, state: ChallengeState) -> None:
    """With the record's own fence: forbidden from another state under a lease; from any other the lease is over."""
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
        await _call(name)(store, replace(lease, fence=lease.fence + off_by))
    assert await store.get(lease.id) == before
