"""``WAIT``: with replicas to wait for, what a failover could forget is not acted upon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from signer.adapters.redis_client.calls import ReplicaWait
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore, StoreSettings
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.application.ports import ClaimOutcome
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import SETTINGS, SUBMISSION, claim_mine, claim_of, fails_saying, open_store, sign
from tests.support.lossy_proxy import lossy_proxy
from tests.support.servers import RedisServer, valkey


def _waiting(timeout: timedelta) -> StoreSettings:
    return replace(SETTINGS, replica_wait=ReplicaWait(replicas=1, timeout=timeout))


PATIENT = _waiting(timedelta(seconds=5))
HASTY = _waiting(timedelta(milliseconds=100))


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
    """The replica; whatever the test did to it, it goes on afterwards."""
    yield pair[1]
    pair[1].resume()


@pytest.fixture
async def store(primary: RedisServer, replica: RedisServer) -> AsyncIterator[RedisChallengeStore]:
    """A store that gives the replica time."""
    async with open_store(primary.url, PATIENT) as store:
        yield store


@pytest.fixture
async def hasty(primary: RedisServer, replica: RedisServer) -> AsyncIterator[RedisChallengeStore]:
    """Another replica's store, which gives up soon."""
    async with open_store(primary.url, HASTY) as store:
        yield store


async def test_what_is_answered_is_known_to_the_replica(store: RedisChallengeStore, replica: RedisServer) -> None:
    """Killed now, the primary would take nothing along."""
    held = await sign(store, claim_of())
    async with open_store(replica.url) as reader:
        assert await reader.get(held.record.id) == held.record


async def test_nothing_is_signed_while_the_replica_is_behind(
    store: RedisChallengeStore,
    hasty: RedisChallengeStore,
    replica: RedisServer,
) -> None:
    """Neither a claim nor a signature is handed out, and neither is read."""
    lease = await claim_mine(store, claim_of("nonce0001"))
    replica.pause()
    await fails_saying("Too few replicas", hasty.claim(claim_of("nonce0002")))
    await fails_saying("Too few replicas", hasty.record_signature(lease, SUBMISSION))
    await fails_saying("Too few replicas", hasty.get(lease.id))
    await fails_saying("Too few replicas", hasty.find(claim_of().customer_id, claim_of().owner))
    await fails_saying("Too few replicas", hasty.claim(claim_of("nonce0001")))
    replica.resume()
    known = await store.claim(claim_of("nonce0001"))
    assert (known.outcome, known.record.state) == (ClaimOutcome.PAST_SIGNING, ChallengeState.FORWARDING)


async def test_nothing_is_sent_while_the_replica_is_behind(
    store: RedisChallengeStore,
    hasty: RedisChallengeStore,
    replica: RedisServer,
) -> None:
    """A stored signature is taken over only where a failover would remember it."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    replica.pause()
    await fails_saying("Too few replicas", hasty.begin_forwarding(held.record.id))


async def test_an_end_is_written_without_the_replica(
    store: RedisChallengeStore,
    hasty: RedisChallengeStore,
    replica: RedisServer,
) -> None:
    """A lost ending is only delivered again, under its key; so it waits for nobody, and can be read."""
    held = await sign(store, claim_of())
    replica.pause()
    settled = await store.settle(held.lease, ChallengeState.VERIFIED, None)
    assert await hasty.get(held.record.id) == settled


async def test_a_repeated_claim_vouches_for_the_first_one(primary: RedisServer, replica: RedisServer) -> None:
    """The repetition changes nothing and comes by another connection; its ``WAIT`` counts the first one's write."""
    async with lossy_proxy(primary.url) as proxy, open_store(proxy.url, HASTY) as hasty:
        async with open_store(primary.url, PATIENT) as store:
            await store.claim(
                claim_of("nonce0001")
            )  # now the script is known, and the next answer is the one that counts
        replica.pause()
        proxy.lose_next()
        await fails_saying("Too few replicas", hasty.claim(claim_of("nonce0002")))
        assert proxy.lost == 1


async def test_waiting_for_replicas_has_to_fit_into_a_call(primary: RedisServer) -> None:
    """Else the call would end before its confirmation could come."""
    redis = await open_redis(RedisSettings(url=primary.url, call_timeout=timedelta(milliseconds=100)))
    with pytest.raises(ValueError, match="shorter"):
        RedisChallengeStore(redis, HASTY)
    await redis.close()


async def test_replicas_that_are_not_waited_for_are_warned_about(primary: RedisServer, replica: RedisServer) -> None:
    """As are those that are waited for and are not there: then nothing is signed."""
    primary.command("CONFIG", "SET", "appendonly", "yes")
    redis = await open_redis(RedisSettings(url=primary.url))
    try:
        [forgets] = await find_weaknesses(redis)
        assert "wait_for_replicas = 1" in forgets
        assert await find_weaknesses(redis, ReplicaWait(replicas=1)) == ()
        [refuses] = await find_weaknesses(redis, ReplicaWait(replicas=2))
        assert "nothing is signed" in refuses
    finally:
        primary.command("CONFIG", "SET", "appendonly", "no")
        await redis.close()
