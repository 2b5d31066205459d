"""Junk in the indexes, and indexes of another type: what is sound is recovered, and callers of the rest get 503."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import SHARDS
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    OWNER,
    SETTINGS,
    RedisUnderTest,
    assert_unavailable,
    bring_to,
    claim_of,
    real_store,
    sign,
)
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.servers import RedisServer

JUNK: Final = 10_000
SHARD: Final = claim_of().id[:2]
INDEX: Final = f"signer:{{s{SHARD}}}:unsettled"
OTHER_OWNER: Final = AccountId.parse("eip155:324:0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")
FILL: Final = """
for number = 1, tonumber(ARGV[2]) do
  redis.call('ZADD', KEYS[1], number, string.format(ARGV[1], number))
end
"""


@pytest.fixture
def under_test(redis: RedisCalls, server: RedisServer) -> RedisUnderTest:
    """Its records, and a method that lets time pass."""
    under_test = RedisUnderTest(redis, server)
    under_test.settings = SETTINGS
    return under_test


@pytest.fixture
def store(redis: RedisCalls, log: FakeDamageLog) -> RedisChallengeStore:
    """A replica's store."""
    return real_store(redis, damage_log=log)


async def test_junk_is_removed_and_counted(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog
) -> None:
    """Texts of any form, ids of other shards, ids without a record, and ids of final records. The sound id stays."""
    mine = (await sign(store, claim_of())).record.id
    final = (await bring_to(store, ChallengeState.VERIFIED, nonce="nonce0002")).id
    other_shard = (await sign(store, claim_of(owner=OTHER_OWNER))).record.id
    for junk in (
        "",
        "x",
        "\u00e9",
        mine[:-1],
        mine + "0",
        mine.upper(),
        SHARD + "0" * 32,
        final,
        other_shard,
        "f" * 34,
    ):
        server.command("ZADD", INDEX, 1, junk)
    server.command("ZADD", INDEX, 9_999_999_999_999_999, "far ahead")
    await under_test.advance(LEASE)
    assert sorted(await store.due(64)) == sorted([mine, other_shard])
    assert log.junk == [11]
    assert server.command("ZRANGE", INDEX, 0, -1) == [mine]
    assert sorted(await store.due(64)) == sorted([mine, other_shard])
    assert (log.junk, log.damaged, log.failed) == ([11], [], [])


@pytest.mark.parametrize("form", ["junk %d", SHARD + "%032x"])
async def test_ten_thousand_junk_members_delay_no_other_shard(
    store: RedisChallengeStore,
    under_test: RedisUnderTest,
    server: RedisServer,
    log: FakeDamageLog,
    form: str,
) -> None:
    """A round removes a thousand members of a shard; the challenge behind the junk is found when it is gone."""
    behind = (await sign(store, claim_of())).record.id
    other = (await sign(store, claim_of(owner=OTHER_OWNER))).record.id
    await under_test.advance(LEASE)
    server.command("EVAL", FILL, 1, INDEX, form, JUNK)
    rounds = 0
    while behind not in (due := await store.due(64)):
        assert due == [other]
        rounds += 1
    assert sorted(due) == sorted([behind, other])
    assert (rounds, sum(log.junk), max(log.junk)) == (JUNK // 1024, JUNK, 1024)


async def test_records_of_newer_release_delay_no_other(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog
) -> None:
    """More of them are due than a round takes over; they stay in the index."""
    for number in range(20):
        newer = (await sign(store, claim_of(f"newer{number:04}"))).record.id
        server.command("HSET", f"signer:{{s{SHARD}}}:challenge:{newer[2:]}", "state", "newer")
    mine = (await sign(store, claim_of())).record.id
    await under_test.advance(LEASE)
    assert await store.due(8) == [mine]
    assert (server.command("ZCARD", INDEX), log.junk) == (21, [])


async def test_index_of_another_type_leaves_other_shards_working(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog
) -> None:
    """It is reported once, until the list of such indexes changes."""
    other = (await sign(store, claim_of(owner=OTHER_OWNER))).record.id
    await under_test.advance(LEASE)
    server.command("SET", INDEX, "garbage")
    for _ in range(3):
        assert await store.due(64) == [other]
    [(keys, reason)] = log.failed
    assert (keys, "another type" in reason) == ([INDEX], True)
    server.command("DEL", INDEX)
    assert await store.due(64) == [other]
    server.command("SADD", INDEX, "garbage")
    assert await store.due(64) == [other]
    assert [keys for keys, _ in log.failed] == [[INDEX], [INDEX]]


async def test_claim_in_shard_with_index_of_another_type_writes_nothing(
    store: RedisChallengeStore, server: RedisServer
) -> None:
    """Its owners get 503; when the key is deleted, they can sign."""
    server.command("SET", INDEX, "garbage")
    await assert_unavailable("another type", store.claim(claim_of()))
    assert server.command("KEYS", "signer:*") == [INDEX]
    await sign(store, claim_of(owner=OTHER_OWNER))
    server.command("DEL", INDEX)
    await sign(store, claim_of())


async def test_moves_in_shard_with_index_of_another_type_are_not_made_in_part(
    store: RedisChallengeStore, server: RedisServer
) -> None:
    """A move is refused whole. A final state is kept, its submission removed, and the caller gets 503 once."""
    held = await sign(store, claim_of())
    kept = await sign(store, claim_of("nonce0002", forward=False))
    server.command("SET", INDEX, "garbage")
    await assert_unavailable("another type", store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0)))
    await assert_unavailable("another type", store.claim(claim_of("nonce0002", forward=True)))
    assert await store.get(held.record.id) == held.record
    assert await store.get(kept.record.id) == kept.record
    await assert_unavailable("another type", store.settle(held.lease, ChallengeState.VERIFIED, None))
    record = await store.get(held.record.id)
    assert record is not None
    assert (record.state, record.submission) == (ChallengeState.VERIFIED, None)
    found = await store.find(CUSTOMER, OWNER)
    assert found is not None


async def test_nothing_is_due_if_no_index_can_be_read(
    store: RedisChallengeStore, server: RedisServer, log: FakeDamageLog
) -> None:
    """All of them are reported."""
    keys = [f"signer:{{s{shard:02x}}}:unsettled" for shard in range(SHARDS)]
    for key in keys:
        server.command("SET", key, "garbage")
    assert await store.due(64) == await store.due(64) == []
    assert [failed for failed, _ in log.failed] == [keys]
