"""What a run over Sentinel or a cluster rests on: its taps know who asked which server, and its faults fail over."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
from tests.chaos.failovers import first_answers, forgotten_ends
from tests.chaos.good_run import GOOD, ID, OTHER, T0, answer, move, record
from tests.chaos.moves import Move, StoreTap, Trace
from tests.chaos.plan import FaultKind, Struck
from tests.chaos.replicated_stores import ReplicatedStore
from tests.chaos.stores import StoreFailover
from tests.chaos.table import as_text, figures
from tests.chaos.topologies import TOPOLOGIES
from tests.chaos.verdict import by_rule, violations
from tests.support.challenge_stores import MAX_AGE
from tests.support.failovers import owner_on

NOW = datetime.now(UTC)


@dataclass(slots=True)
class Site:
    """A store with replicas, and two replicas of the service that reach it through taps."""

    store: ReplicatedStore
    trace: Trace
    replicas: list[RedisChallengeStore]


@pytest.fixture(params=["sentinel", "cluster"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """One of each topology."""
    trace = Trace()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(TOPOLOGIES[request.param]())
        assert isinstance(store, ReplicatedStore)
        wait_for = store.settings["wait_for_replicas"]
        assert isinstance(wait_for, int)
        replicas = []
        for number in (1, 2):
            url, ways = await store.open_way(lambda way, number=number: StoreTap(trace, f"{number}.1", way.port))  # type: ignore[misc]
            for way in ways:
                stack.push_async_callback(way.close)
            settings = RedisSettings(
                url=url,
                command_timeout=timedelta(seconds=3),
                wait_for_replicas=wait_for,
                wait_timeout=timedelta(seconds=1),
            )
            redis = await open_redis(settings)
            stack.push_async_callback(redis.close)
            replicas.append(RedisChallengeStore(redis, settings, max_age=MAX_AGE))
        yield Site(store, trace, replicas)


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


async def test_moves_are_told_with_who_asked_and_which_server_made_them(site: Site) -> None:
    """Also those of a primary that the service was sent to by Sentinels, or by the map of slots."""
    for number, replica in enumerate(site.replicas):
        for shard in range(0, 64, 16):
            await replica.claim(_claim(shard, f"nonce{number}"))
    assert [made.process for made in site.trace.moves] == ["1.1"] * 4 + ["2.1"] * 4
    assert all(made.confirmed for made in site.trace.moves)
    primaries = {server.port for server in site.store._primaries()}
    assert {made.server for made in site.trace.moves} == primaries
    assert len(await site.store.records()) == 8


async def test_a_move_that_too_few_replicas_have_is_unconfirmed(site: Site) -> None:
    """The store made it, and whoever asked was not told that he may act upon it."""
    await site.replicas[0].claim(_claim(0, "nonce1"))
    primaries = site.store._primaries()
    replicas = [server for server in site.store._servers if server not in primaries]
    for replica in replicas:
        replica.pause()
    try:
        with pytest.raises(Unavailable, match="Too few replicas"):
            await site.replicas[0].claim(_claim(0, "nonce2"))
    finally:
        for replica in replicas:
            replica.resume()
    assert [made.confirmed for made in site.trace.moves] == [True, False]


@pytest.mark.parametrize(
    "fault", [FaultKind.STORE_PRIMARY_KILLED, FaultKind.STORE_PRIMARY_STALLED, FaultKind.STORE_FAILED_OVER]
)
async def test_a_failover_takes_place_and_all_is_well_again(site: Site, fault: FaultKind) -> None:
    """The service goes on at the new primary, with all replicas confirming; nothing that was confirmed is gone."""
    for shard in range(0, 64, 16):
        await site.replicas[0].claim(_claim(shard, "nonce1"))
    await site.store.faults[fault](0.1)
    for shard in range(0, 64, 16):
        await site.replicas[0].claim(_claim(shard, "nonce2"))
    [failover] = site.store.failovers
    assert failover.began < failover.promoted <= failover.told
    assert len(await site.store.records()) == 8
    assert await site.store.unsettled() == 8


# --- the verdict over them --------------------------------------------------------------------------------------------

FAILOVER = StoreFailover(began=T0 + 0.5, promoted=T0 + 1.5, told=T0 + 1.6, server=2)
FOUND_AGAIN = replace(
    GOOD,
    plan=replace(GOOD.plan, store="cluster"),
    failovers=[FAILOVER],
    moves=[
        *(replace(made, server=1) for made in GOOD.moves),
        move("begin_forwarding", "deliverable", "forwarding", at=2.0, fence=2, life="2.1", server=2),
        move("settle", "moved", "already_signed", at=2.4, fence=2, life="2.1", server=2),
    ],
    records={ID: record(state="already_signed", code="already_signed")},
    answers=[answer(), answer(body=answer().body | {"state": "already_signed", "code": "already_signed"})],
)
"""An end that the new primary did not have: it is delivered again, and the API says that it has it."""


def test_an_end_that_a_failover_forgot_is_counted_and_excused() -> None:
    """And only that: at one server it is a violation, and so is an end that contradicts the first one."""
    assert forgotten_ends(FOUND_AGAIN) == {ID}
    assert violations(FOUND_AGAIN) == []
    at_one_server = [replace(made, server=1) for made in FOUND_AGAIN.moves]
    assert set(by_rule(violations(replace(FOUND_AGAIN, moves=at_one_server)))) == {"final_is_final"}
    contradicting = [answer(), answer(body=answer().body | {"state": "rejected", "code": "refused"})]
    assert "final_is_final" in by_rule(violations(replace(FOUND_AGAIN, answers=contradicting)))
    assert forgotten_ends(GOOD) == frozenset()


def _signed_twice(*, confirmed: bool) -> list[Move]:
    first = move("record_signature", "deliverable", "forwarding", at=0.1, signature=OTHER, confirmed=confirmed)
    return [first, *GOOD.moves]


def test_a_signature_that_was_not_confirmed_was_released_to_nobody() -> None:
    """A failover may forget it, and another one is made; had it been confirmed, that would be two."""
    assert violations(replace(GOOD, moves=_signed_twice(confirmed=False))) == []
    found = by_rule(violations(replace(GOOD, moves=_signed_twice(confirmed=True))))
    assert set(found) == {"one_signature_for_a_nonce", "signed_once"}


def test_the_table_tells_of_failovers() -> None:
    """How many there were, how soon the run went on, and what was forgotten; one server has no such rows."""
    run = replace(FOUND_AGAIN, served=[(T0 + 1.4, 2), (T0 + 1.7, 1), (T0 + 2.0, 2)])
    assert [round(seconds, 2) for seconds in first_answers(run)] == [0.4]
    dead = Struck(T0, T0 + 2, FaultKind.REPLICA_KILLED, "1.1")
    assert first_answers(replace(run, diary=[dead])) == []
    told = figures(run, [])
    assert told["failovers of the store"] == "1"
    assert told["worst time from then until it answered the service"] == "0.40 s (of 1)"
    assert told["ends that a failover forgot, found again"] == "1"
    assert "found again" not in as_text(GOOD, [])
    assert any("2 is primary" in line for line in FOUND_AGAIN.history(ID))
