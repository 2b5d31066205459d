"""The backlog: what the metrics say about challenges without a final state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from signer.adapters.redis_client.opening import ACL_COMMANDS, open_redis
from signer.adapters.redis_store import due_indexes
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.due_indexes import Backlog
from signer.domain.errors import Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.support.challenge_stores import SETTINGS, bring_to, changed, claim_of, real_store, sign
from tests.support.servers import RedisServer

AGE = timedelta(minutes=4)
INDEX = f"signer:{{s{claim_of().id[:2]}}}:unsettled"


@pytest.fixture
async def store(server: RedisServer, tmp_path: Path) -> AsyncIterator[RedisChallengeStore]:
    """A store whose user has only the documented rights."""
    server.command("ACL", "SETUSER", "signer", "on", ">secret", "resetkeys", "~signer:*", "-@all", *ACL_COMMANDS)
    (tmp_path / "password").write_text("secret")
    redis = await open_redis(
        changed(SETTINGS, url=server.tcp_url, username="signer", password_file=tmp_path / "password")
    )
    yield real_store(redis)
    await redis.close()


async def test_backlog_is_empty_without_challenges(store: RedisChallengeStore) -> None:
    """Also after one became final."""
    assert await store.backlog() == Backlog(0, 0.0)
    await bring_to(store, ChallengeState.VERIFIED)
    assert await store.backlog() == Backlog(0, 0.0)


async def test_age_is_that_of_the_oldest_challenge_that_is_to_be_delivered(
    store: RedisChallengeStore, server: RedisServer
) -> None:
    """Junk, a record of another type and one with ``forward: false`` only count."""
    old = (await sign(store, claim_of(nonce="nonce0001"))).record
    await sign(store, claim_of(nonce="nonce0002", forward=False))
    key = f"signer:{{s{old.id[:2]}}}:challenge:{old.id[2:]}"
    created_at = int(server.command("HGET", key, "created_at")) - AGE // timedelta(microseconds=1)
    server.command("HSET", key, "created_at", created_at)
    await sign(store, claim_of(nonce="nonce0003"))
    server.command("ZADD", INDEX, 1, "%junk%", 2, f"{old.id[:2]}{'f' * 32}")
    server.command("SET", f"signer:{{s{old.id[:2]}}}:challenge:{'f' * 32}", "no hash")
    backlog = await store.backlog()
    assert backlog.unsettled == 5
    assert AGE.total_seconds() <= backlog.oldest_age < AGE.total_seconds() + 60


async def test_count_of_each_shard_is_limited(
    store: RedisChallengeStore, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million challenges cost no more than the limit."""
    monkeypatch.setattr(due_indexes, "_MAX_COUNTED", 3)
    for number in range(5):
        server.command("ZADD", INDEX, number, f"junk-{number}")
    assert (await store.backlog()).unsettled == 3


async def test_index_of_another_type_makes_the_backlog_unknown(store: RedisChallengeStore, server: RedisServer) -> None:
    """A part of the number would be a wrong number."""
    server.command("SET", INDEX, "no index")
    with pytest.raises(Unavailable):
        await store.backlog()
