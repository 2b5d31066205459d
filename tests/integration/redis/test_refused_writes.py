"""Servers that refuse writes: the error names the cause, and no move is made in part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.domain.errors import Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.support.challenge_stores import assert_unavailable, claim_of, open_store, sign
from tests.support.servers import RedisServer, valkey


async def test_full_server_refuses_claims(server: RedisServer) -> None:
    """Readiness fails, claims are refused whole, and a begun challenge goes on once there is space."""
    async with open_store(server.url) as store:
        held = await sign(store, claim_of("nonce0001"))
        server.command("CONFIG", "SET", "maxmemory", "1")
        await assert_unavailable("full", store.ping())
        await assert_unavailable("full", store.claim(claim_of("nonce0002")))
        await assert_unavailable("full", store.settle(held.lease, ChallengeState.VERIFIED, None))
        assert await store.get(held.record.id) == held.record
        assert await store.get(claim_of("nonce0002").id) is None
        server.command("CONFIG", "SET", "maxmemory", "0")
        await store.settle(held.lease, ChallengeState.VERIFIED, None)


async def test_readiness_fails_as_soon_as_a_full_server_refuses_claims(server: RedisServer) -> None:
    """Near the limit a small request still passed, so ``/readyz`` was 200 while every claim was refused.

    A server may free memory between two calls. So one refused claim before a probe that passes shows no fault; a
    refused claim before and after it does.
    """
    async with open_store(server.url) as store:
        await store.ping()
        used = int(server.command("INFO", "memory")["used_memory"])
        server.command("CONFIG", "SET", "maxmemory", used + (1 << 20))
        await store.ping()
        for number in range(20_000):
            if await _is_full(store.claim(claim_of(f"nonce{number:05}"))):
                if await _is_full(store.ping()):
                    return
                assert not await _is_full(store.claim(claim_of(f"again{number:05}"))), "ready, but refuses claims"
        pytest.fail("The server never became full.")


async def test_replica_refuses_writes(server: RedisServer) -> None:
    """With the wrong server in the URL readiness fails and nothing is claimed; reads work."""
    with valkey() as replica:
        async with open_store(server.url) as store, open_store(replica.url) as wrong:
            held = await sign(store, claim_of("nonce0001"))
            replica.follow(server)
            await assert_unavailable("read-only replica", wrong.ping())
            await assert_unavailable("read-only replica", wrong.claim(claim_of("nonce0002")))
            assert await wrong.get(held.record.id) == held.record


async def test_server_without_required_replicas_refuses_writes(server: RedisServer) -> None:
    """``NOREPLICAS``, because of ``min-replicas-to-write``."""
    server.command("CONFIG", "SET", "min-replicas-to-write", 1)
    async with open_store(server.url) as store:
        await assert_unavailable("replicas", store.ping())
        await assert_unavailable("replicas", store.claim(claim_of()))


async def test_server_that_cannot_persist_refuses_writes(server: RedisServer) -> None:
    """``MISCONF``: after a disk failure nothing is signed."""
    (server.folder / "dump.rdb").mkdir()
    server.command("CONFIG", "SET", "save", "3600 1", "stop-writes-on-bgsave-error", "yes")
    async with open_store(server.url) as store:
        await store.claim(claim_of("nonce0001"))
        server.command("BGSAVE")
        async with asyncio.timeout(10):
            while server.command("INFO", "persistence")["rdb_last_bgsave_status"] == "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await assert_unavailable("disk", store.ping())
        await assert_unavailable("disk", store.claim(claim_of("nonce0002")))
        assert await store.get(claim_of("nonce0002").id) is None


async def test_missing_password_is_named(server: RedisServer) -> None:
    """``NOAUTH``."""
    server.command("CONFIG", "SET", "requirepass", "a password")
    async with open_store(server.url) as store:
        await assert_unavailable("password", store.ping())


async def test_eviction_and_missing_persistence_are_weaknesses(server: RedisServer) -> None:
    """Both break the guarantees without an error, so they are reported at start."""
    redis = await open_redis(RedisSettings(url=server.url))
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    evicts, forgets = await find_weaknesses(redis, wait_for_replicas=0)
    assert "allkeys-lru" in evicts
    assert "appendonly yes" in forgets
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "appendonly", "yes")
    assert await find_weaknesses(redis, wait_for_replicas=0) == ()

    await redis.close()


async def _is_full(call: Awaitable[object]) -> bool:
    try:
        await call
    except Unavailable as error:
        if "full" not in error.detail:
            raise
        return True
    return False
