"""``WAIT``: with ``wait_for_replicas``, nothing is returned that a failover could lose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.application.ports import ClaimOutcome
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import SUBMISSION, assert_unavailable, claim_granted, claim_of, open_store, sign
from tests.support.lossy_proxy import lossy_proxy
from tests.support.servers import RedisServer, valkey

PATIENT = {"wait_for_replicas": 1, "wait_timeout": timedelta(seconds=5)}
HASTY = {"wait_for_replicas": 1, "wait_timeout": timedelta(milliseconds=100)}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary, and a replica that follows it."""
    with valkey() as primary, valkey() as replica:
        replica.follow(primary)
        yield primary, replica


@pytest.fixture
def primary(pair: tuple[RedisServer, RedisServer]) -> RedisServer:
    """The primary, emptied."""
    pair[0].command("FLUSHALL")
    return pair[0]


@pytest.fixture
def replica(pair: tuple[RedisServer, RedisServer]) -> Iterator[RedisServer]:
    """The replica, which is resumed after the test."""
    yield pair[1]
    pair[1].resume()


@pytest.fixture
async def store(primary: RedisServer, replica: RedisServer) -> AsyncIterator[RedisChallengeStore]:
    """A store that waits long for the replica."""
    async with open_store(primary.url, **PATIENT) as store:
        yield store


@pytest.fixture
async def hasty(primary: RedisServer, replica: RedisServer) -> AsyncIterator[RedisChallengeStore]:
    """A store that waits for the replica only briefly."""
    async with open_store(primary.url, **HASTY) as store:
        yield store


async def test_returned_record_is_on_the_replica(store: RedisChallengeStore, replica: RedisServer) -> None:
    """If the primary were killed now, nothing would be lost."""
    held = await sign(store, claim_of())
    async with open_store(replica.url) as reader:
        assert await reader.get(held.record.id) == held.record


async def test_claim_and_signature_fail_while_replica_is_behind(
    store: RedisChallengeStore,
    hasty: RedisChallengeStore,
    replica: RedisServer,
) -> None:
    """They are not returned, and reads fail as well."""
    lease = await claim_granted(store, claim_of("nonce0001"))
    replica.pause()
    await assert_unavailable("Too few replicas", hasty.claim(claim_of("nonce0002")))
    await assert_unavailable("Too few replicas", hasty.record_signature(lease, SUBMISSION))
    await assert_unavailable("Too few replicas", hasty.get(lease.id))
    await assert_unavailable("Too few replicas", hasty.find(claim_of().customer_id, claim_of().owner))
    await assert_unavailable("Too few replicas", hasty.claim(claim_of("nonce0001")))
    replica.resume()
    known = await store.claim(claim_of("nonce0001"))
    assert (known.outcome, known.record.state) == (ClaimOutcome.PAST_SIGNING, ChallengeState.FORWARDING)


async def test_begin_forwarding_fails_while_replica_is_behind(
    store: RedisChallengeStore,
    hasty: RedisChallengeStore,
    replica: RedisServer,
) -> None:
    """A stored signature is taken over only if a failover would keep it."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    replica.pause()
    await assert_unavailable("Too few replicas", hasty.begin_forwarding(held.record.id))


async def test_settle_does_not_wait_for_the_replica(
    store: RedisChallengeStore,
    hasty: RedisChallengeStore,
    replica: RedisServer,
) -> None:
    """A final state that is lost only causes another delivery with the same key."""
    held = await sign(store, claim_of())
    replica.pause()
    settled = await store.settle(held.lease, ChallengeState.VERIFIED, None)
    assert await hasty.get(held.record.id) == settled


async def test_wait_of_repeated_claim_counts_the_first_write(primary: RedisServer, replica: RedisServer) -> None:
    """The repetition changes nothing and uses another connection; its ``WAIT`` counts the write of the first."""
    async with lossy_proxy(primary.url) as proxy, open_store(proxy.url, **HASTY) as hasty:
        async with open_store(primary.url, **PATIENT) as store:
            await store.claim(claim_of("nonce0001"))  # the server knows the script now: the next reply is its result
        replica.pause()
        proxy.lose_next()
        await assert_unavailable("Too few replicas", hasty.claim(claim_of("nonce0002")))
        assert proxy.lost == 1


async def test_replicas_without_wait_are_a_weakness(primary: RedisServer, replica: RedisServer) -> None:
    """So is waiting for replicas that do not exist: nothing is signed then."""
    primary.command("CONFIG", "SET", "appendonly", "yes")
    redis = await open_redis(RedisSettings(url=primary.url))
    try:
        [forgets] = await find_weaknesses(redis, wait_for_replicas=0)
        assert "wait_for_replicas = 1" in forgets
        assert await find_weaknesses(redis, wait_for_replicas=1) == ()
        [refuses] = await find_weaknesses(redis, wait_for_replicas=2)
        assert "nothing is signed" in refuses
    finally:
        primary.command("CONFIG", "SET", "appendonly", "no")
        await redis.close()
