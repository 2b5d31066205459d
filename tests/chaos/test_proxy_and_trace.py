"""Tests of the proxies, the trace and the plan of chaos runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from signer.adapters.redis_client.calls import Script
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.application.ports import Claim, ClaimOutcome
from signer.domain.errors import LeaseLost, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import Submission, challenge_id
from tests.chaos.moves import Move, StoreTap, Trace
from tests.chaos.plan import ChaosFaultKind, Plan, fault_phases, fault_weights_for
from tests.chaos.proxy import Connect, Connection
from tests.chaos.stores import SingleNode, single_node
from tests.support.challenge_stores import MAX_AGE
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.retries import until_available

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
    """Open a store behind a proxy whose taps fill ``trace``."""
    async with single_node() as node:
        assert isinstance(node, SingleNode)
        url, [proxy] = await node.open_proxies(lambda _way: StoreTap(trace, "1.1"))
        settings = RedisSettings(url=url, command_timeout=timedelta(seconds=20), lease=timedelta(seconds=5))
        redis = await open_redis(settings)
        try:
            yield RedisChallengeStore(redis, settings, max_age=MAX_AGE, damage_log=FakeDamageLog()), node
        finally:
            await redis.close()
            await proxy.close()
            assert proxy.errors == []


async def test_proxy_closes_its_connections_whenever_it_is_closed() -> None:
    """Also in each of the moments after a client has left, in which the proxy ends the connection itself."""
    async with single_node() as node:
        for turns in range(12):
            _, [proxy] = await node.open_proxies(lambda _way: StoreTap(Trace(), "1.1"))
            opened: list[Connection] = []
            connect = proxy._connect

            async def remembered(connect: Connect = connect, opened: list[Connection] = opened) -> Connection:
                opened.append(await connect())
                return opened[-1]

            proxy._connect = remembered
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            writer.write(b"*1\r\n$4\r\nPING\r\n")
            assert await reader.readline() == b"+PONG\r\n"
            writer.close()
            await writer.wait_closed()
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in proxy._connections:  # as `close` does, after a pause of its own
                task.cancel()
            await proxy.close()
            assert [to_server.transport.is_closing() for _, to_server in opened] == [True], turns


async def test_trace_records_every_move() -> None:
    """The trace has script, fencing token, outcome, state and lease of each call, in the store's order."""
    trace = Trace()
    async with traced_store(trace) as (store, _):
        claimed = await store.claim(CLAIM)
        assert claimed.lease is not None
        held = await store.record_signature(claimed.lease, SUBMISSION)
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        with pytest.raises(LeaseLost):
            await store.settle(held.lease, ChallengeState.VERIFIED, None)
        assert await store.due(64) == []
    recorded = [(move.script, move.fencing_token, move.outcome, move.state) for move in trace.moves]
    assert recorded == [
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


async def test_dropped_response_leaves_the_move_made_once() -> None:
    """The client repeats the call with the same token."""
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


async def test_blocked_proxy_delays_requests_and_loses_none() -> None:
    """The store is unreachable meanwhile; the delayed request is executed and recorded afterwards."""
    trace = Trace()
    async with single_node() as node:
        url, [proxy] = await node.open_proxies(lambda _way: StoreTap(trace, "1.1"))
        settings = RedisSettings(url=url, command_timeout=timedelta(seconds=0.3))
        redis = await open_redis(settings)
        store = RedisChallengeStore(redis, settings, max_age=MAX_AGE, damage_log=FakeDamageLog())
        await until_available(store.ping)
        proxy.hold()
        with pytest.raises(Unavailable):
            await store.claim(CLAIM)
        assert await node.records() == {}
        proxy.release()
        claimed = await until_available(lambda: store.claim(CLAIM))
        assert claimed.outcome in {ClaimOutcome.GRANTED, ClaimOutcome.LEASED_ELSEWHERE}
        assert list(await node.records()) == [CLAIM.id]
        await redis.close()
        await proxy.close()


async def test_trace_records_the_call_of_a_cancelled_client() -> None:
    """The client is cancelled while the store is stopped; the store makes the move later."""
    trace = Trace()
    async with traced_store(trace) as (store, node):
        await store.claim(replace(CLAIM, id=challenge_id(OWNER, "api.example.org", "nonce5678")))
        trace.moves.clear()
        stalled = asyncio.ensure_future(node.faults[ChaosFaultKind.STORE_STALLED](0.5))
        await asyncio.sleep(0.1)
        asking = asyncio.create_task(store.claim(CLAIM))
        await asyncio.sleep(0.1)
        asking.cancel()
        await stalled
        async with asyncio.timeout(5):
            while not trace.moves:  # noqa: ASYNC110 - a poll is enough
                await asyncio.sleep(0.02)
    assert [(move.script, move.outcome) for move in trace.moves] == [("claim", "granted")]


CLAIM_SCRIPT = Script.of("return 1")
MARKED_WAIT = (("SET", "mark", "", "PX", 60_000), ("WAIT", 2, 300))
CLAIMED = b"*3\r\n$7\r\ngranted\r\n:1\r\n*0\r\n"


def packed(*parts: str | int) -> bytes:
    """Return a command as a client sends it."""
    lines = [f"*{len(parts)}", *(line for part in parts for line in (f"${len(str(part))}", str(part))), ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("wait", "responses", "confirmed"),
    [
        (MARKED_WAIT, b"+OK\r\n:2\r\n", True),
        (MARKED_WAIT, b"+OK\r\n:1\r\n", False),
        (MARKED_WAIT, b"-NOREPLICAS Not enough good replicas to write.\r\n:2\r\n", False),
        (MARKED_WAIT, b"+OK\r\n-ERR WAIT cannot be used with replica instances.\r\n", False),
        ((("WAIT", 0, 1),), b":2\r\n", False),
    ],
)
def test_wait_confirms_the_moves_before_it(
    wait: Sequence[tuple[str | int, ...]], responses: bytes, confirmed: bool
) -> None:
    """Only after a write, and for as many replicas as the service waits for: ``WAIT 0`` asks for the right to wait."""
    trace = Trace({"claim": CLAIM_SCRIPT}, wait_for=2)
    calls, waits = StoreTap(trace, "1.1"), StoreTap(trace, "1.1")
    calls.on_request(packed("EVALSHA", CLAIM_SCRIPT.sha1, 1, "key", CLAIM.id, "token"))
    calls.on_response(CLAIMED)
    for command in wait:
        waits.on_request(packed(*command))
    waits.on_response(responses)
    assert [move.confirmed for move in trace.moves] == [confirmed]


def test_the_wait_of_a_readiness_check_leaves_moves_to_the_next_one() -> None:
    """``WAIT 0`` neither confirms a move nor takes it from the ``WAIT`` of its own call."""
    trace = Trace({"claim": CLAIM_SCRIPT}, wait_for=2)
    tap = StoreTap(trace, "1.1")
    tap.on_request(packed("EVALSHA", CLAIM_SCRIPT.sha1, 1, "key", CLAIM.id, "token"))
    tap.on_response(CLAIMED)
    tap.on_request(packed("WAIT", 0, 1))
    tap.on_response(b":0\r\n")
    for command in MARKED_WAIT:
        tap.on_request(packed(*command))
    tap.on_response(b"+OK\r\n:2\r\n")
    assert trace.moves[0].confirmed


async def test_killed_store_restarts_with_confirmed_records() -> None:
    """The append-only file contains every confirmed move."""
    async with traced_store(Trace()) as (store, node):
        await store.claim(CLAIM)
        await node.faults[ChaosFaultKind.STORE_KILLED](0.0)
        assert list(await node.records()) == [CLAIM.id]
        assert await node.unsettled() == 1


def test_same_seed_gives_the_same_faults() -> None:
    """Another seed gives other faults; each run contains all kinds."""
    plan = Plan.of_size(5, 2000, 200)
    assert fault_phases(plan) == fault_phases(Plan.of_size(5, 2000, 200))
    assert fault_phases(plan) != fault_phases(Plan.of_size(6, 2000, 200))
    faults = [fault for phase in fault_phases(plan) for fault in phase]
    assert len(faults) + len(fault_phases(plan)) == 200
    assert {fault.kind for fault in faults} == set(fault_weights_for("single"))
    every = {ChaosFaultKind.REPLICA_KILLED_ALONE, *fault_weights_for("single"), *fault_weights_for("cluster")}
    assert every == set(ChaosFaultKind)
