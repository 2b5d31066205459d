"""What the harness itself rests on: ways that lose what was done, and a trace that knows what was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.application.ports import Claim, ClaimOutcome
from signer.domain.errors import LeaseLost, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import Submission, challenge_id
from tests.chaos.moves import Move, StoreTap, Trace
from tests.chaos.plan import FaultKind, Plan, deck_for, storms
from tests.chaos.stores import SingleNode, single_node
from tests.support.challenge_stores import MAX_AGE

OWNER = AccountId.parse("eip155:324:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
NOW = datetime.now(UTC)
CLAIM = Claim(
    id=challenge_id(OWNER, "api.example.org", "nonce1234"),
    message_hash="00" * 32,
    customer_id="04c5851c-4386-5bd9-9f89-08312f8aee3a",
    owner=OWNER,
    forward=True,
    issued_at=NOW,
    expires_at=NOW + timedelta(minutes=10),
)
SUBMISSION = Submission(b'{"signature":"a proof"}', "a proof")


@asynccontextmanager
async def traced_store(trace: Trace) -> AsyncIterator[tuple[RedisChallengeStore, SingleNode]]:
    """Run a store that is reached through a tapped way."""
    async with single_node() as node:
        assert isinstance(node, SingleNode)
        url, [way] = await node.open_way(lambda _way: StoreTap(trace, "1.1"))
        settings = RedisSettings(url=url, command_timeout=timedelta(seconds=1), lease=timedelta(seconds=5))
        redis = await open_redis(settings)
        try:
            yield RedisChallengeStore(redis, settings, max_age=MAX_AGE), node
        finally:
            await redis.close()
            await way.close()
            assert way.errors == []


async def test_the_trace_tells_every_move() -> None:
    """Script, fence, outcome, state and lease of each call stand in the trace, in the store's own order."""
    trace = Trace()
    async with traced_store(trace) as (store, _):
        claimed = await store.claim(CLAIM)
        assert claimed.lease is not None
        held = await store.record_signature(claimed.lease, SUBMISSION)
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        with pytest.raises(LeaseLost):
            await store.settle(held.lease, ChallengeState.VERIFIED, None)
        assert await store.due(64) == []
    told = [(move.script, move.fence, move.outcome, move.state) for move in trace.moves]
    assert told == [
        ("claim", None, "granted", "claimed"),
        ("record_signature", 1, "deliverable", "forwarding"),
        ("settle", 1, "moved", "verified"),
        ("settle", 1, "lease_lost", "verified"),
    ]
    assert [move.at for move in trace.moves] == sorted(move.at for move in trace.moves)
    assert trace.moves[1].grants_lease
    assert 4 < trace.moves[1].leased_until - trace.moves[1].at <= 5
    assert trace.moves[0].signature is None
    assert trace.moves[1].signature == trace.moves[2].signature is not None


async def test_an_answer_is_lost_after_the_move_was_made() -> None:
    """The caller hears nothing and asks again with the same token; the store has done it once."""
    trace = Trace()
    async with traced_store(trace) as (store, node):
        lost: list[Move] = []

        def lose_the_first(move: Move) -> bool:
            lost.append(move)
            return len(lost) > 1

        trace.listeners.append(lose_the_first)
        claimed = await store.claim(CLAIM)
        assert claimed.outcome is ClaimOutcome.GRANTED
        assert len(await node.records()) == 1
    assert len(lost) == 2
    assert lost[0].token == lost[1].token


async def test_a_way_that_is_held_up_lets_nothing_pass_and_loses_nothing() -> None:
    """While it is held the store cannot be reached; what was on its way is done afterwards, and heard of."""
    trace = Trace()
    async with single_node() as node:
        url, [way] = await node.open_way(lambda _way: StoreTap(trace, "1.1"))
        settings = RedisSettings(url=url, command_timeout=timedelta(seconds=0.3))
        redis = await open_redis(settings)
        store = RedisChallengeStore(redis, settings, max_age=MAX_AGE)
        await store.ping()
        way.hold()
        with pytest.raises(Unavailable):
            await store.claim(CLAIM)
        assert await node.records() == {}
        way.release()
        claimed = await store.claim(CLAIM)
        assert claimed.outcome in {ClaimOutcome.GRANTED, ClaimOutcome.LEASED_ELSEWHERE}
        assert list(await node.records()) == [CLAIM.id]
        await redis.close()
        await way.close()


async def test_what_a_dead_client_asked_for_is_heard() -> None:
    """The connection is cut while the store stands still; the move that it makes later is in the trace."""
    trace = Trace()
    async with traced_store(trace) as (store, node):
        await store.claim(replace(CLAIM, id=challenge_id(OWNER, "api.example.org", "nonce5678")))
        trace.moves.clear()
        stalled = asyncio.ensure_future(node.faults[FaultKind.STORE_STALLED](0.5))
        await asyncio.sleep(0.1)
        asking = asyncio.create_task(store.claim(CLAIM))
        await asyncio.sleep(0.1)
        asking.cancel()
        await stalled
        async with asyncio.timeout(5):
            while not trace.moves:  # noqa: ASYNC110 - the trace tells listeners, and nobody listens
                await asyncio.sleep(0.02)
    assert [(move.script, move.outcome) for move in trace.moves] == [("claim", "granted")]


async def test_a_store_that_is_killed_comes_back_with_what_it_answered_for() -> None:
    """Its file holds every move; a run may kill it without losing the promise's ground."""
    async with traced_store(Trace()) as (store, node):
        await store.claim(CLAIM)
        await node.faults[FaultKind.STORE_KILLED](0.0)
        assert list(await node.records()) == [CLAIM.id]
        assert await node.unsettled() == 1


def test_a_seed_gives_the_same_faults_again() -> None:
    """The schedule is the seed's; another seed has another one; all kinds come before one comes often."""
    plan = Plan.of_size(5, 2000, 200)
    assert storms(plan) == storms(Plan.of_size(5, 2000, 200))
    assert storms(plan) != storms(Plan.of_size(6, 2000, 200))
    faults = [fault for storm in storms(plan) for fault in storm]
    assert len(faults) + len(storms(plan)) == 200
    assert {fault.kind for fault in faults} == set(deck_for("single"))
    every = {FaultKind.REPLICA_KILLED_ALONE, *deck_for("single"), *deck_for("cluster")}
    assert every == set(FaultKind)
