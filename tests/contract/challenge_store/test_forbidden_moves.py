"""Every move from every state: what ``MOVES`` or the lease forbids is refused and changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final

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
    """Return every call that a replica can make about one record."""
    return {
        "claim": lambda store, _: store.claim(claim_of(nonce)),
        "begin_forwarding": lambda store, lease: store.begin_forwarding(lease.id),
        "expire": lambda store, lease: store.expire(lease.id),
        **{name: _call(name) for name in ("record_signature", "release", "defer")},
        **{f"settle-{state.value}": _call(f"settle-{state.value}") for state in _S},
    }


async def _states_after(under_test: StoreUnderTest, state: ChallengeState, later: timedelta) -> set[ChallengeState]:
    """Make every call on its own record in ``state``, with and without ``forward``; return the states it led to."""
    store = under_test.replica()
    attempts: list[tuple[Lease, Move]] = []
    for forward in (True, False) if state in {_S.CLAIMED, _S.RELEASED, _S.SIGNED} else (True,):
        for number, name in enumerate(_every_call("")):
            nonce = f"nonce{number:02}{forward}{later.seconds}"
            attempts.append((await bring_to(store, state, nonce=nonce, forward=forward), _every_call(nonce)[name]))
    await under_test.advance(later)
    targets = set()
    for lease, move in attempts:
        before = await store.get(lease.id)
        with suppress(ForbiddenMove, LeaseLost):
            await move(store, lease)
        after = await store.get(lease.id)
        assert before is not None
        assert after is not None
        if after._replace(forward=before.forward) != before:
            targets.add(after.state)
    return targets


async def test_possible_moves_are_those_of_the_table(under_test: StoreUnderTest) -> None:
    """All pairs of states: every call at once, when the lease has ended, and after the deadline.

    One call makes two moves: ``record_signature`` goes on from ``signed`` if the challenge is to be delivered.
    """
    for state in _S:
        made: set[ChallengeState] = set()
        for later in (timedelta(0), LEASE, VALID_FOR):
            made |= await _states_after(under_test.emptied(), state, later)
        assert made == MOVES[state] | (MOVES[_S.SIGNED] & {_S.FORWARDING} if state is _S.CLAIMED else set()), state


async def test_move_succeeds_only_from_its_own_state(under_test: StoreUnderTest) -> None:
    """With the record's own fencing token: forbidden from another state, and lease lost if the record has no lease."""
    for name, state in itertools.product(SOURCE_FOR_MOVE, _S):
        store = under_test.emptied().replica()
        lease = await bring_to(store, state)
        before = await store.get(lease.id)
        move = _call(name)
        if state is SOURCE_FOR_MOVE[name]:
            await move(store, lease)
            assert await store.get(lease.id) != before, (name, state)
            continue
        error = await _error_of(move(store, lease))
        assert error is (ForbiddenMove if state in LEASED else LeaseLost), (name, state)
        assert await store.get(lease.id) == before, (name, state)


async def test_move_with_wrong_fencing_token_is_refused_from_every_state(under_test: StoreUnderTest) -> None:
    """An old token, and one that was never given out, move nothing."""
    for name, state in itertools.product(SOURCE_FOR_MOVE, _S):
        store = under_test.emptied().replica()
        lease = await bring_to(store, state)
        before = await store.get(lease.id)
        for offset in (-1, 1):
            wrong = replace(lease, fencing_token=lease.fencing_token + offset)
            assert await _error_of(_call(name)(store, wrong)) is LeaseLost, (name, state, offset)
            assert await store.get(lease.id) == before, (name, state, offset)


async def _error_of(call: Awaitable[object]) -> type[Exception] | None:
    try:
        await call
    except (ForbiddenMove, LeaseLost) as error:
        return type(error)
    return None
