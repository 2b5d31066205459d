"""``redis+cluster://``: nodes are killed, stopped, replaced, their slots moved, and calls find the right node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.crc import key_slot

from signer.adapters.redis_client.opening import ACL_COMMANDS, CLUSTER_ACL_COMMANDS, open_redis
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.application.ports import ClaimOutcome
from signer.domain.errors import PartlyUnavailable, Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.support.challenge_stores import (
    OWNER,
    SETTINGS,
    assert_unavailable,
    changed,
    claim_granted,
    claim_of,
    open_store,
    real_store,
    sign,
)
from tests.support.failovers import fail_over, own_client, owner_on
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.servers import RedisServer
from tests.support.short_deadlines import short_deadlines
from tests.support.topologies import ClusterSite, cluster_site, id_of, wait_until

BEHIND_SECONDS = 4.0
"""Much more than the second that is documented, for a busy machine."""
PRIMARY_WITHIN = "signer.adapters.redis_store.probing._PRIMARY_WITHIN"
KEY = f"{{s{claim_of().id[:2]}}}"
WAIT = {"wait_for_replicas": 1, "wait_timeout": timedelta(seconds=2)}


@pytest.fixture
def site() -> Iterator[ClusterSite]:
    """Three primaries with a replica each."""
    with cluster_site() as site:
        yield site


@pytest.fixture(scope="module")
def shared_site() -> Iterator[ClusterSite]:
    """A cluster for tests that break nothing."""
    with cluster_site(timeout=30) as site:
        yield site


@pytest.fixture
def empty_site(shared_site: ClusterSite) -> ClusterSite:
    """The shared cluster, emptied."""
    for node in shared_site.nodes[:3]:
        node.command("FLUSHALL")
    return shared_site


Strike = Callable[[RedisServer, RedisServer], None]


def _kill(primary: RedisServer, replica: RedisServer) -> None:
    primary.stop()


def _stop(primary: RedisServer, replica: RedisServer) -> None:
    primary.pause()


def _command(primary: RedisServer, replica: RedisServer) -> None:
    replica.command("CLUSTER", "FAILOVER")


# --- failovers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strike", [_kill, _stop, _command])
async def test_claims_reach_the_new_primary(site: ClusterSite, strike: Strike) -> None:
    """After it is killed, stopped with its connections open, or replaced by its replica."""
    primary = site.primary_of(KEY)
    [replica] = site.replicas_of(primary)
    witness = next(node for node in site.nodes if node not in {primary, replica})
    seen = await fail_over(
        own_client(site.url),
        lambda: strike(primary, replica),
        [replica],
        is_announced=lambda: site.primary_of(KEY, queried=witness) is replica,
        owner=OWNER,
        undo=primary.resume,
    )
    assert seen.client_behind < BEHIND_SECONDS
    assert len(seen.claimed) > 20


async def test_failover_by_command_loses_no_claim() -> None:
    """The replica takes over when it has everything, and the calls wait for it. No other failover may come first."""
    with cluster_site(timeout=30) as site:
        primary = site.primary_of(KEY)
        [replica] = site.replicas_of(primary)
        seen = await fail_over(
            own_client(site.url),
            lambda: _command(primary, replica),
            [replica],
            is_announced=lambda: site.primary_of(KEY, queried=replica) is replica,
            owner=OWNER,
        )
    assert len(seen.claimed) > 20
    assert list(seen.lost) == []


async def test_due_returns_ids_of_the_other_nodes_while_one_is_down() -> None:
    """All calls fail only when no node responds."""
    with cluster_site("--cluster-require-full-coverage", "no", replicas=0, timeout=30) as site:
        owners = [owner_on(shard) for shard in range(64)]
        async with open_store(site.url) as store:
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
            with short_deadlines(store, 2):
                assert 0 < len(await store.due(100)) < 64 - on_first
            site.nodes[2].stop()
            with short_deadlines(store, 0.2):
                await assert_unavailable("store|Store", store.due(100))
            site.nodes[1].resume()


@pytest.mark.parametrize(
    ("full_coverage", "kind", "text"),
    [
        ("no", PartlyUnavailable, "Of 3 primaries of the store's cluster, 1 cannot be used: "),
        ("yes", Unavailable, "A primary of the store's cluster fails, and the cluster accepts no calls: "),
    ],
)
async def test_ping_names_primary_that_fails_each_time(
    full_coverage: str, kind: type[Unavailable], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the others say that the whole cluster is down; else they can be used. Only ``place`` has the address."""
    monkeypatch.setattr(PRIMARY_WITHIN, 10.0)
    timeout = 1.0 if kind is Unavailable else 30.0  # without a node that is considered down, the cluster does not fail
    with cluster_site("--cluster-require-full-coverage", full_coverage, replicas=0, timeout=timeout) as site:
        node, *others = site.nodes

        def info(node: RedisServer) -> str:
            return str(node.command("CLUSTER", "INFO"))

        async def assert_named(cause: str, times: int) -> None:
            if kind is Unavailable:
                wait_until(lambda: all("cluster_state:fail" in info(other) for other in others), "It does not fail")
            for _ in range(times):
                with pytest.raises(Unavailable) as caught:
                    await store.ping()
                error = caught.value
                assert (type(error), error.cause, error.place) == (kind, cause, f"127.0.0.1:{node.port}")
                assert error.detail.startswith(text)
                assert str(node.port) not in error.detail

        async with open_store(site.url) as store:
            await store.ping()
            node.stop()
            await assert_named("unreachable", times=4)
            node.start()
            site.settle()
            await store.ping()
            node.pause()
            monkeypatch.setattr(PRIMARY_WITHIN, 2.5)
            await assert_named("timeout", times=2)
            node.resume()


# --- slots that move --------------------------------------------------------------------------------------------------


def _two_nodes(site: ClusterSite) -> tuple[RedisServer, RedisServer]:
    source = site.primary_of(KEY)
    return source, next(node for node in site.nodes[:3] if node is not source)


def _begin_moving(source: RedisServer, target: RedisServer) -> None:
    slot = key_slot(KEY.encode())
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))


def _move_keys(source: RedisServer, target: RedisServer) -> None:
    keys = source.command("CLUSTER", "GETKEYSINSLOT", key_slot(KEY.encode()), 100)
    if keys:
        source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)


def _finish_moving(source: RedisServer, target: RedisServer) -> None:
    slot, new_owner = key_slot(KEY.encode()), id_of(target)
    target.command("CLUSTER", "SETSLOT", slot, "NODE", new_owner)
    source.command("CLUSTER", "SETSLOT", slot, "NODE", new_owner)


async def test_calls_follow_a_slot_that_is_moved(empty_site: ClusterSite) -> None:
    """Half-way (ASK), a record is moved where it is, and a new one waits (TRYAGAIN); then MOVED is followed."""
    source, target = _two_nodes(empty_site)
    async with open_store(empty_site.url, **WAIT) as store:
        held = await sign(store, claim_of("nonce0001"))
        _begin_moving(source, target)
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
        _finish_moving(source, target)
        assert (await waiting).outcome is ClaimOutcome.GRANTED
        assert await store.get(held.record.id) == settled
        assert empty_site.primary_of(KEY) is target
        assert target.command("EXISTS", f"signer:{KEY}:challenge:{claim_of('nonce0002').id[2:]}")


@pytest.mark.parametrize("moved_first", ["record", "index"])
async def test_due_keeps_ids_of_a_slot_that_is_half_moved(empty_site: ClusterSite, moved_first: str) -> None:
    """A record that is on the other node is not junk, and no index is reported as failed."""
    source, target = _two_nodes(empty_site)
    settings, log = changed(SETTINGS, url=empty_site.url, command_timeout=timedelta(seconds=1)), FakeDamageLog()
    redis = await open_redis(settings)
    store = real_store(redis, settings, damage_log=log)
    held = await sign(store, claim_of("nonce0001"))
    key_for = {"record": f"signer:{KEY}:challenge:{held.record.id[2:]}", "index": f"signer:{KEY}:unsettled"}
    source.command("ZADD", key_for["index"], 1, held.record.id)
    _begin_moving(source, target)
    source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", key_for[moved_first])
    assert await store.due(10) == [held.record.id]
    _move_keys(source, target)
    _finish_moving(source, target)
    assert await store.due(10) == [held.record.id]
    assert (log.junk, log.failed, log.damaged) == ([], [], [])
    await redis.close()


async def test_claim_on_a_stuck_slot_fails_with_the_reason(empty_site: ClusterSite) -> None:
    """A new record on a slot that stays half-way is refused in time."""
    source, target = _two_nodes(empty_site)
    async with open_store(empty_site.url, command_timeout=timedelta(seconds=1)) as store:
        await claim_granted(store, claim_of("nonce0001"))
        _begin_moving(source, target)
        _move_keys(source, target)
        await assert_unavailable("moving slots", store.claim(claim_of("nonce0002")))
        _finish_moving(source, target)
        assert (await store.claim(claim_of("nonce0002"))).outcome is ClaimOutcome.GRANTED


async def test_slot_without_primary_is_a_weakness(site: ClusterSite) -> None:
    """Its owners would get 503; weaknesses of any primary are reported as well."""
    redis = await open_redis(changed(SETTINGS, url=site.url))
    await redis.command("PING")
    for node in site.nodes[:3]:
        node.command("CONFIG", "SET", "appendonly", "yes")
    assert await find_weaknesses(redis, wait_for_replicas=1) == ()
    site.nodes[2].command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    site.nodes[1].command("CLUSTER", "DELSLOTS", 8000)
    [evicts] = await find_weaknesses(redis, wait_for_replicas=1)
    assert "allkeys-lru" in evicts
    await redis.close()
    redis = await open_redis(changed(SETTINGS, url=f"redis+cluster://127.0.0.1:{site.nodes[1].port}"))
    forgets, evicts, uncovered = await find_weaknesses(redis, wait_for_replicas=0)
    assert "allkeys-lru" in evicts
    assert "wait_for_replicas = 1" in forgets
    assert uncovered.startswith("1 slots")
    await redis.close()


# --- the same as with one server --------------------------------------------------------------------------------------


async def test_scripts_are_sent_to_nodes_that_lack_them(empty_site: ClusterSite) -> None:
    """A node that was just promoted knows none."""
    async with open_store(empty_site.url) as store:
        for shard in range(0, 64, 8):
            await claim_granted(store, claim_of(owner=owner_on(shard)))
        for node in empty_site.nodes:
            node.command("SCRIPT", "FLUSH")
        for shard in range(0, 64, 8):
            assert (await store.claim(claim_of(owner=owner_on(shard)))).outcome is ClaimOutcome.LEASED_ELSEWHERE


async def test_wait_counts_replicas_of_the_primary_that_has_the_key(empty_site: ClusterSite) -> None:
    """``WAIT`` follows the script on the same connection."""
    primary = empty_site.primary_of(KEY)
    [replica] = empty_site.replicas_of(primary)
    async with open_store(empty_site.url, **WAIT) as store:
        await claim_granted(store, claim_of("nonce0001"))
        replica.pause()
        try:
            await assert_unavailable("Too few replicas", store.claim(claim_of("nonce0002")))
            elsewhere = next(n for n in range(64) if empty_site.primary_of(f"{{s{n:02x}}}") is not primary)
            await claim_granted(store, claim_of(owner=owner_on(elsewhere)))
        finally:
            replica.resume()


async def test_documented_rights_are_sufficient(empty_site: ClusterSite, tmp_path: Path) -> None:
    """Also while a slot is moved."""
    (tmp_path / "password").write_text("a password")
    rights = ("resetkeys", "~signer:*", "resetchannels", "-@all", *ACL_COMMANDS, *CLUSTER_ACL_COMMANDS)
    for node in empty_site.nodes:
        node.command("ACL", "SETUSER", "signer", "on", ">a password", *rights)
    source, target = _two_nodes(empty_site)
    password_file = tmp_path / "password"
    user = changed(SETTINGS, url=empty_site.url, username="signer", password_file=password_file, **WAIT)
    redis = await open_redis(user)
    store = real_store(redis, user)
    await store.ping()
    held = await sign(store, claim_of())
    backlog = await store.backlog()
    assert backlog.unsettled == 1
    assert backlog.oldest_age > 0
    _begin_moving(source, target)
    _move_keys(source, target)
    assert await store.get(held.record.id) == held.record
    _finish_moving(source, target)
    await store.settle(held.lease, ChallengeState.VERIFIED, None)
    await store.due(10)
    assert (await store.backlog()).unsettled == 0
    await find_weaknesses(redis, wait_for_replicas=1)
    await redis.close()


async def test_nodes_that_announce_no_host_are_found(empty_site: ClusterSite) -> None:
    """``unknown-endpoint``: the host is the one that was queried, and the port is the node's."""
    for node in empty_site.nodes:
        node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        async with open_store(empty_site.url) as store:
            for shard in range(0, 64, 8):
                await claim_granted(store, claim_of(owner=owner_on(shard)))
    finally:
        for node in empty_site.nodes:
            node.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_single_server_url_of_a_cluster_fails_with_the_reason(empty_site: ClusterSite) -> None:
    """The URL's scheme has to be changed."""
    wrong = next(node for node in empty_site.nodes[:3] if node is not empty_site.primary_of(KEY))
    async with open_store(wrong.tcp_url) as store:
        await assert_unavailable(r"redis\+cluster", store.claim(claim_of()))


async def test_one_node_in_the_url_is_sufficient(empty_site: ClusterSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the others; and ``ping`` tests each of them in time."""
    monkeypatch.setattr(PRIMARY_WITHIN, 10.0)
    async with open_store(f"redis+cluster://localhost:{empty_site.nodes[4].port}") as store:
        for node in empty_site.nodes:
            node.command("CONFIG", "RESETSTAT")
        for _ in range(60):
            await store.ping()
        wait_until(
            lambda: all("cmdstat_zadd" in _stats(node) for node in empty_site.nodes[:3]), "A node is never tested"
        )


def _stats(node: RedisServer) -> dict[str, object]:
    stats: dict[str, object] = node.command("INFO", "commandstats")
    return stats
