"""Tests of the Sentinel and Cluster stores of chaos runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.application.ports import Claim
from signer.domain.errors import Unavailable
from signer.domain.record import challenge_id
from tests.chaos.failovers import first_response_times, forgotten_final_states
from tests.chaos.good_run import GOOD, ID, OTHER, T0, move, record, response
from tests.chaos.moves import Move, StoreTap, Trace
from tests.chaos.plan import ChaosFaultKind, InjectedFault
from tests.chaos.proxy import TapFactory
from tests.chaos.replicated_stores import ReplicatedStore
from tests.chaos.store_kinds import STORES
from tests.chaos.stores import StoreFailover
from tests.chaos.table import as_text, figures
from tests.chaos.verdict import by_rule, violations
from tests.support.challenge_stores import MAX_AGE
from tests.support.failovers import owner_on
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.topologies import SERVICE

NOW = datetime.now(UTC)


@dataclass(slots=True)
class TappedStore:
    """A replicated store, and replicas of the service behind taps.

    Attributes:
        store: the store.
        trace: the moves of all replicas.
        replicas: two, patient enough for a slow machine.
        open_replica: opens one more replica; takes its name and how long it waits for the store's replicas.
    """

    store: ReplicatedStore
    trace: Trace
    replicas: list[RedisChallengeStore]
    open_replica: Callable[[str, timedelta], Awaitable[RedisChallengeStore]]


def tap_factory(trace: Trace, process: str) -> TapFactory:
    """Return a factory of taps that record the moves of this process."""
    return lambda proxy: StoreTap(trace, process, proxy.port)


@pytest.fixture(params=["sentinel", "cluster"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[TappedStore]:
    """Open a Sentinel store, then a Cluster store."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(STORES[request.param]())
        assert isinstance(store, ReplicatedStore)
        trace = Trace(wait_for=store.wait_for)

        async def open_replica(process: str, wait_timeout: timedelta) -> RedisChallengeStore:
            url, proxies = await store.open_proxies(tap_factory(trace, process))
            for proxy in proxies:
                stack.push_async_callback(proxy.close)
            settings = RedisSettings(
                url=url,
                command_timeout=timedelta(seconds=20),
                wait_for_replicas=store.wait_for,
                wait_timeout=wait_timeout,
            )
            redis = await open_redis(settings)
            stack.push_async_callback(redis.close)
            return RedisChallengeStore(redis, settings, max_age=MAX_AGE, damage_log=FakeDamageLog())

        replicas = [await open_replica(process, timedelta(seconds=5)) for process in ("1.1", "2.1")]
        yield TappedStore(store, trace, replicas, open_replica)


def prevent_failovers(store: ReplicatedStore) -> None:
    """Let the store begin no failover when a server does not respond for some seconds."""
    for sentinel in store._sentinels():
        sentinel.command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", 30_000)
    for server in store._servers:
        server.command("CONFIG", "SET", "cluster-node-timeout", 30_000)


def _claim(shard: int, nonce: str) -> Claim:
    owner = owner_on(shard)
    return Claim(
        id=challenge_id(owner, "api.example.org", nonce),
        message_hash="00" * 32,
        customer_id="04c5851c-4386-5bd9-9f89-08312f8aee3a",
        owner=owner,
        forward=True,
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=10),
    )


async def test_moves_name_their_process_and_server(site: TappedStore) -> None:
    """Also for primaries that the service found through Sentinels or the slot map."""
    prevent_failovers(site.store)
    for number, replica in enumerate(site.replicas):
        for shard in range(0, 64, 16):
            await replica.claim(_claim(shard, f"nonce{number}"))
    assert [made.process for made in site.trace.moves] == ["1.1"] * 4 + ["2.1"] * 4
    assert all(made.confirmed for made in site.trace.moves)
    primaries = {server.port for server in site.store._primaries()}
    assert {made.server for made in site.trace.moves} == primaries
    assert len(await site.store.records()) == 8


async def test_move_with_too_few_replicas_is_unconfirmed(site: TappedStore) -> None:
    """The store made the move, and the service got an error."""
    prevent_failovers(site.store)
    hasty = await site.open_replica("3.1", timedelta(seconds=0.3))
    await site.replicas[0].claim(_claim(0, "nonce1"))
    primaries = site.store._primaries()
    replicas = [server for server in site.store._servers if server not in primaries]
    for replica in replicas:
        replica.pause()
    try:
        with pytest.raises(Unavailable, match="Too few replicas"):
            await hasty.claim(_claim(0, "nonce2"))
    finally:
        for replica in replicas:
            replica.resume()
    assert [made.confirmed for made in site.trace.moves] == [True, False]


@pytest.mark.parametrize(
    "fault",
    [ChaosFaultKind.STORE_PRIMARY_KILLED, ChaosFaultKind.STORE_PRIMARY_STALLED, ChaosFaultKind.STORE_FAILED_OVER],
)
async def test_store_is_healthy_after_a_failover(site: TappedStore, fault: ChaosFaultKind) -> None:
    """The service continues on the new primary with all replicas; no confirmed record is lost."""
    for shard in range(0, 64, 16):
        await site.replicas[0].claim(_claim(shard, "nonce1"))
    await site.store.faults[fault](0.1)
    for shard in range(0, 64, 16):
        await site.replicas[0].claim(_claim(shard, "nonce2"))
    [failover] = site.store.failovers
    assert failover.began < failover.promoted <= failover.announced
    assert len(await site.store.records()) == 8
    assert await site.store.unsettled() == 8


# --- the verdict about failovers ------------------------------------------------------------------------------------

FAILOVER = StoreFailover(began=T0 + 0.5, promoted=T0 + 1.5, announced=T0 + 1.6, server=2)
FOUND_AGAIN = replace(
    GOOD,
    plan=replace(GOOD.plan, store="cluster"),
    failovers=[FAILOVER],
    moves=[
        *(replace(made, server=1) for made in GOOD.moves),
        move("begin_forwarding", "deliverable", "forwarding", at=2.0, fencing_token=2, process="2.1", server=2),
        move("settle", "moved", "already_signed", at=2.4, fencing_token=2, process="2.1", server=2),
    ],
    records={ID: record(state="already_signed", code="already_signed")},
    responses=[response(), response(body=response().body | {"state": "already_signed", "code": "already_signed"})],
)
"""The new primary lacks a final state: the signature is delivered again; the API has it."""


def test_final_state_lost_in_a_failover_is_counted_and_allowed() -> None:
    """Without a failover it is a violation, and so is a contradicting final state."""
    assert forgotten_final_states(FOUND_AGAIN) == {ID}
    assert violations(FOUND_AGAIN) == []
    at_one_server = [replace(made, server=1) for made in FOUND_AGAIN.moves]
    assert set(by_rule(violations(replace(FOUND_AGAIN, moves=at_one_server)))) == {"final_states_do_not_change"}
    contradicting = [response(), response(body=response().body | {"state": "rejected", "code": "refused"})]
    assert "final_states_do_not_change" in by_rule(violations(replace(FOUND_AGAIN, responses=contradicting)))
    assert forgotten_final_states(GOOD) == frozenset()


def _signed_twice(*, confirmed: bool) -> list[Move]:
    first = move("record_signature", "deliverable", "forwarding", at=0.1, signature=OTHER, confirmed=confirmed)
    return [first, *GOOD.moves]


def test_unconfirmed_signature_counts_as_not_released() -> None:
    """A failover may lose it, and another signature follows; two confirmed ones are a violation."""
    assert violations(replace(GOOD, moves=_signed_twice(confirmed=False))) == []
    found = by_rule(violations(replace(GOOD, moves=_signed_twice(confirmed=True))))
    assert set(found) == {"one_signature_for_a_nonce", "signed_once"}


def test_table_has_rows_for_failovers() -> None:
    """Their number, the time until the service continued, and lost final states; a single store has no such rows."""
    run = replace(FOUND_AGAIN, served=[(T0 + 1.4, 2), (T0 + 1.7, 1), (T0 + 2.0, 2)])
    assert [round(seconds, 2) for seconds in first_response_times(run)] == [0.4]
    dead = InjectedFault(T0, T0 + 2, ChaosFaultKind.REPLICA_KILLED, "1.1")
    assert first_response_times(replace(run, injected=[dead])) == []
    rows = figures(run, [])
    assert rows["failovers of the store"] == "1"
    assert rows["worst time from then until it responded to the service"] == "0.40 s (of 1)"
    assert rows["ends that a failover forgot, found again"] == "1"
    assert "found again" not in as_text(GOOD, [])
    assert any("2 is primary" in line for line in FOUND_AGAIN.history(ID))
