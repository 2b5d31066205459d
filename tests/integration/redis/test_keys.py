"""The keys in Redis: their names, how long they are kept, and what is removed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import shard_of
from tests.support.challenge_stores import (
    CUSTOMER,
    OWNER,
    RETENTION,
    SUBMISSION,
    claim_granted,
    claim_of,
    open_store,
    sign,
)
from tests.support.servers import RedisServer

SHARD = shard_of(OWNER)
ID = claim_of().id
RECORD = f"signer:{{s{SHARD}}}:challenge:{ID[2:]}"
POINTER = f"signer:{{s{SHARD}}}:customer:{CUSTOMER}:{OWNER}"
INDEX = f"signer:{{s{SHARD}}}:unsettled"


async def test_keys_of_a_challenge_are_on_one_slot_as_documented(server: RedisServer) -> None:
    """Record, pointer and index, with the hash tag of the owner's shard."""
    async with open_store(server.url) as store:
        await sign(store, claim_of())
    assert sorted(server.command("KEYS", "*")) == sorted((RECORD, POINTER, INDEX))
    assert server.command("GET", POINTER) == ID
    assert server.command("ZRANGE", INDEX, 0, -1) == [ID]


async def test_key_prefix_separates_two_services(server: RedisServer) -> None:
    """Two services can share a server."""
    async with open_store(server.url, key_prefix="another") as store, open_store(server.url) as beside:
        await claim_granted(store, claim_of())
        assert await beside.get(ID) is None
    assert all(key.startswith("another:") for key in server.command("KEYS", "*"))


async def _settle(store: ChallengeStore, server: RedisServer) -> None:
    held = await sign(store, claim_of())
    await store.settle(held.lease, ChallengeState.VERIFIED, None)


async def _expire(store: ChallengeStore, server: RedisServer) -> None:
    held = await sign(store, claim_of(forward=False))
    server.command("HSET", RECORD, "expires_at", 1)
    assert await store.expire(held.record.id) is not None


@pytest.mark.parametrize("end", [_settle, _expire])
async def test_final_record_has_no_body_and_no_index_entry(server: RedisServer, end: object) -> None:
    """The body is a live credential; recovery does not look at settled challenges."""
    async with open_store(server.url) as store:
        assert callable(end)
        await end(store, server)
    assert "submission" not in server.command("HKEYS", RECORD)
    assert server.command("HGET", RECORD, "signature") == SUBMISSION.signature
    assert server.command("EXISTS", INDEX) == 0


async def test_record_and_pointer_are_kept_for_retention_after_first_claim(server: RedisServer) -> None:
    """No later move shortens or extends it."""
    retention = RETENTION // timedelta(milliseconds=1)
    async with open_store(server.url) as store:
        lease = await claim_granted(store, claim_of())
        server.command("PEXPIRE", RECORD, 1_000_000)
        server.command("PEXPIRE", POINTER, 2_000_000)
        await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
        held = await sign(store, claim_of())
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        assert 0 < server.command("PTTL", RECORD) <= 1_000_000
        assert 0 < server.command("PTTL", POINTER) <= 2_000_000
        await claim_granted(store, claim_of("nonce0002", message="b" * 64))
    other = claim_of("nonce0002").id
    for key in (RECORD.replace(ID[2:], other[2:]), POINTER):
        assert retention - 60_000 < server.command("PTTL", key) <= retention


@pytest.mark.parametrize("call", ["begin_forwarding", "expire"])
async def test_index_entry_without_record_is_removed(server: RedisServer, call: str) -> None:
    """As after an eviction: recovery does not meet it again."""
    async with open_store(server.url) as store:
        await sign(store, claim_of())
        server.command("DEL", RECORD)
        server.command("ZADD", INDEX, 1, ID)
        assert await getattr(store, call)(ID) is None
    assert server.command("ZRANGE", INDEX, 0, -1) == []


async def test_ping_leaves_only_keys_that_expire(server: RedisServer) -> None:
    """It writes with names that no challenge can have."""
    async with open_store(server.url) as store:
        await store.ping()
    keys = server.command("KEYS", "*")
    assert keys
    assert all(key.endswith(":probe") and server.command("PTTL", key) > 0 for key in keys)


async def test_each_move_is_one_round_trip(server: RedisServer) -> None:
    """Claim, record, settle: three commands, besides those of the connection itself."""
    async with open_store(server.url) as store:
        await store.ping()
        server.command("CONFIG", "RESETSTAT")
        held = await sign(store, claim_of())
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
    stats = server.command("INFO", "commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 3
    sent = {"cmdstat_evalsha", "cmdstat_info", "cmdstat_config|resetstat", "cmdstat_client|setinfo", "cmdstat_hello"}
    inside = {
        "cmdstat_time",
        "cmdstat_get",
        "cmdstat_hset",
        "cmdstat_hmget",
        "cmdstat_hdel",
        "cmdstat_zadd",
        "cmdstat_zrem",
    }
    assert set(stats) - sent - inside == {"cmdstat_set", "cmdstat_pexpire"}
