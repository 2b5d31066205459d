"""``redis+cluster://``: nodes die, hang, are replaced, hand slots over, and calls find the node that has their key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from redis.crc import key_slot

from signer.adapters.redis_client.calls import ReplicaWait
from signer.adapters.redis_client.opening import ACL_COMMANDS, CLUSTER_ACL_COMMANDS, open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.application.ports import ClaimOutcome
from signer.domain.lifecycle import ChallengeState
from tests.support.challenge_stores import OWNER, SETTINGS, claim_mine, claim_of, fails_saying, open_store, sign
from tests.support.failovers import fail_over, owner_on
from tests.support.servers import RedisServer
from tests.support.topologies import ClusterSite, cluster_site, id_of, wait_until

BEHIND_SECONDS = 4.0
"""Far more than the second that is promised, for a machine that has other things to do."""
KEY = f"{{s{claim_of().id[:2]}}}"
WAIT = replace(SETTINGS, replica_wait=ReplicaWait(replicas=1, timeout=timedelta(seconds=2)))


@pytest.fixture
def site() -> Iterator[ClusterSite]:
    """Three primaries with a replica each."""
    with cluster_site() as site:
        yield site


@pytest.fixture(scope="module")
def calm() -> Iterator[ClusterSite]:
    """The same, for tests that break nothing."""
    with cluster_site(timeout=30) as site:
        yield site


@pytest.fixture
def steady(calm: ClusterSite) -> ClusterSite:
    """That one, emptied."""
    for node in calm.nodes[:3]:
        node.command("FLUSHALL")
    return calm


Strike = Callable[[RedisServer, RedisServer], None]


def _kill(primary: RedisServer, replica: RedisServer) -> None:
    primary.stop()


def _stall(primary: RedisServer, replica: RedisServer) -> None:
    primary.pause()


def _command(primary: RedisServer, replica: RedisServer) -> None:
    replica.command("CLUSTER", "FAILOVER")


# --- failovers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strike", [_kill, _stall, _command])
async def test_a_failover_is_followed(site: ClusterSite, strike: Strike) -> None:
    """Killed, stopped with its connections open, or exchanged for its replica: claims go to the new primary."""
    primary = site.primary_of(KEY)
    [replica] = site.replicas_of(primary)
    witness = next(node for node in site.nodes if node not in {primary, replica})
    seen = await fail_over(
        site.url,
        lambda: strike(primary, replica),
        [replica],
        is_told=lambda: site.primary_of(KEY, asked=witness) is replica,
        owner=OWNER,
        undo=primary.resume,
    )
    assert seen.client_behind < BEHIND_SECONDS
    assert len(seen.claimed) > 20


async def test_a_failover_by_command_forgets_nothing(site: ClusterSite) -> None:
    """The replica takes over when it has all, and the calls wait for it."""
    primary = site.primary_of(KEY)
    [replica] = site.replicas_of(primary)
    seen = await fail_over(
        site.url,
        lambda: _command(primary, replica),
        [replica],
        is_told=lambda: site.primary_of(KEY, asked=replica) is replica,
        owner=OWNER,
    )
    assert len(seen.claimed) > 20
    assert list(seen.forgotten) == []


async def test_a_node_that_is_down_hides_nothing_of_the_others() -> None:
    """What is due on its shards is told when it is back, what is due elsewhere now; and all fail where none is left."""
    with cluster_site("--cluster-require-full-coverage", "no", replicas=0, timeout=30) as site:
        owners = [owner_on(shard) for shard in range(64)]
        async with open_store(site.url, call_timeout=timedelta(seconds=1)) as store:
            for owner in owners:
                await sign(store, claim_of(owner=owner))
            for node in site.nodes:
                for key in node.command("KEYS", "*:unsettled"):
                    node.command("ZADD", key, 1, node.command("ZRANGE", key, 0, 0)[0])
            assert len(await store.due(100)) == 64
            on_first = len(site.nodes[0].command("KEYS", "*:unsettled"))
            site.nodes[0].stop()
            assert 0 < on_first < 64
            assert len(await store.due(100)) == 64 - on_first
            site.nodes[1].pause()
            assert 0 < len(await store.due(100)) < 64 - on_first
            site.nodes[2].stop()
            await fails_saying("store|Store", store.due(100))
            site.nodes[1].resume()


# --- slots that move --------------------------------------------------------------------------------------------------


def _two_nodes(site: ClusterSite) -> tuple[RedisServer, RedisServer]:
    source = site.primary_of(KEY)
    return source, next(node for node in site.nodes[:3] if node is not source)


def _begin_to_move(source: RedisServer, target: RedisServer) -> None:
    slot = key_slot(KEY.encode())
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))


def _move_keys(source: RedisServer, target: RedisServer) -> None:
    keys = source.command("CLUSTER", "GETKEYSINSLOT", key_slot(KEY.encode()), 100)
    if keys:
        source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)


def _end_to_move(source: RedisServer, target: RedisServer) -> None:
    slot, new_owner = key_slot(KEY.encode()), id_of(target)
    target.command("CLUSTER", "SETSLOT", slot, "NODE", new_owner)
    source.command("CLUSTER", "SETSLOT", slot, "NODE", new_owner)


async def test_a_slot_that_moves_is_followed(steady: ClusterSite) -> None:
    """Half-way (ASK), a record is moved where it lies, and a new one waits (TRYAGAIN); at last MOVED is followed."""
    source, target = _two_nodes(steady)
    async with open_store(steady.url, WAIT) as store:
        held = await sign(store, claim_of("nonce0001"))
        _begin_to_move(source, target)
        assert await store.get(held.record.id) == held.record
        source.command("ZADD", f"signer:{KEY}:unsettled", 1, held.record.id)
        _move_keys(source, target)
        assert await store.get(held.record.id) == held.record
        assert await store.due(10) == [held.record.id]
        settled = await store.settle(held.lease, ChallengeState.VERIFIED, None)
        assert settled.state is ChallengeState.VERIFIED
        waiting = asyncio.create_task(store.claim(claim_of("nonce0002")))
        async with asyncio.timeout(10):
            while "errorstat_TRYAGAIN" not in target.command("INFO", "errorstats"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        _end_to_move(source, target)
        assert (await waiting).outcome is ClaimOutcome.GRANTED
        assert await store.get(held.record.id) == settled
        assert steady.primary_of(KEY) is target
        assert target.command("EXISTS", f"signer:{KEY}:challenge:{claim_of('nonce0002').id[2:]}")


async def test_a_slot_that_is_stuck_is_said(steady: ClusterSite) -> None:
    """A new record on a slot that stays half-way is refused in time, with the reason."""
    source, target = _two_nodes(steady)
    async with open_store(steady.url, call_timeout=timedelta(seconds=1)) as store:
        await claim_mine(store, claim_of("nonce0001"))
        _begin_to_move(source, target)
        _move_keys(source, target)
        await fails_saying("moving slots", store.claim(claim_of("nonce0002")))
        _end_to_move(source, target)
        assert (await store.claim(claim_of("nonce0002"))).outcome is ClaimOutcome.GRANTED


async def test_a_slot_without_a_primary_is_warned_about(site: ClusterSite) -> None:
    """Its owners would get 503, so it is named at start, as is all that is true of any primary."""
    redis = await open_redis(RedisSettings(url=site.url))
    await redis.command("PING")
    for node in site.nodes[:3]:
        node.command("CONFIG", "SET", "appendonly", "yes")
    assert await find_weaknesses(redis, ReplicaWait(replicas=1)) == ()
    site.nodes[2].command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    site.nodes[1].command("CLUSTER", "DELSLOTS", 8000)
    [evicts] = await find_weaknesses(redis, ReplicaWait(replicas=1))
    assert "allkeys-lru" in evicts
    await redis.close()
    redis = await open_redis(RedisSettings(url=f"redis+cluster://127.0.0.1:{site.nodes[1].port}"))
    forgets, evicts, uncovered = await find_weaknesses(redis)
    assert "allkeys-lru" in evicts
    assert "wait_for_replicas = 1" in forgets
    assert uncovered.startswith("1 slots")
    await redis.close()


# --- what is the same as with one server ------------------------------------------------------------------------------


async def test_scripts_are_sent_to_every_node_that_lacks_them(steady: ClusterSite) -> None:
    """A node that has just become primary knows none."""
    async with open_store(steady.url) as store:
        for shard in range(0, 64, 8):
            await claim_mine(store, claim_of(owner=owner_on(shard)))
        for node in steady.nodes:
            node.command("SCRIPT", "FLUSH")
        for shard in range(0, 64, 8):
            assert (await store.claim(claim_of(owner=owner_on(shard)))).outcome is ClaimOutcome.LEASED_ELSEWHERE


async def test_wait_speaks_for_the_node_that_has_the_key(steady: ClusterSite) -> None:
    """``WAIT`` travels behind the script on its own connection, so the replica of that very primary has to confirm."""
    primary = steady.primary_of(KEY)
    [replica] = steady.replicas_of(primary)
    async with open_store(steady.url, WAIT) as store:
        await claim_mine(store, claim_of("nonce0001"))
        replica.pause()
        try:
            await fails_saying("Too few replicas", store.claim(claim_of("nonce0002")))
            elsewhere = next(n for n in range(64) if steady.primary_of(f"{{s{n:02x}}}") is not primary)
            await claim_mine(store, claim_of(owner=owner_on(elsewhere)))
        finally:
            replica.resume()


async def test_the_documented_rights_suffice(steady: ClusterSite, tmp_path: Path) -> None:
    """By the documented ACL and nothing more, also while a slot moves."""
    (tmp_path / "password").write_text("a password")
    rights = ("resetkeys", "~signer:*", "resetchannels", "-@all", *ACL_COMMANDS, *CLUSTER_ACL_COMMANDS)
    for node in steady.nodes:
        node.command("ACL", "SETUSER", "signer", "on", ">a password", *rights)
    source, target = _two_nodes(steady)
    password_file = tmp_path / "password"
    user = RedisSettings(
        url=steady.url, username="signer", password_file=password_file, call_timeout=timedelta(seconds=5)
    )
    redis = await open_redis(user)
    store = RedisChallengeStore(redis, WAIT)
    await store.ping()
    held = await sign(store, claim_of())
    _begin_to_move(source, target)
    _move_keys(source, target)
    assert await store.get(held.record.id) == held.record
    _end_to_move(source, target)
    await store.settle(held.lease, ChallengeState.VERIFIED, None)
    await store.due(10)
    await find_weaknesses(redis, ReplicaWait(replicas=1))
    await redis.close()


async def test_nodes_that_tell_no_host_are_found(steady: ClusterSite) -> None:
    """``unknown-endpoint``: the host is the one that was asked, and the port is the node's."""
    for node in steady.nodes:
        node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        async with open_store(steady.url) as store:
            for shard in range(0, 64, 8):
                await claim_mine(store, claim_of(owner=owner_on(shard)))
    finally:
        for node in steady.nodes:
            node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_a_cluster_reached_as_one_server_says_what_is_wrong(steady: ClusterSite) -> None:
    """The URL's scheme is what has to change."""
    wrong = next(node for node in steady.nodes[:3] if node is not steady.primary_of(KEY))
    async with open_store(wrong.tcp_url) as store:
        await fails_saying(r"redis\+cluster", store.claim(claim_of()))


async def test_one_node_in_the_url_is_enough(steady: ClusterSite) -> None:
    """It names the others; and readiness asks each of them in time."""
    async with open_store(f"redis+cluster://localhost:{steady.nodes[4].port}") as store:
        for node in steady.nodes:
            node.command("CONFIG", "RESETSTAT")
        for _ in range(60):
            await store.ping()
        wait_until(lambda: all("cmdstat_zadd" in _stats(node) for node in steady.nodes[:3]), "Some node is never asked")


def _stats(node: RedisServer) -> dict[str, object]:
    stats: dict[str, object] = node.command("INFO", "commandstats")
    return stats
