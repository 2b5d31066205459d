"""``WAIT``: with replicas to wait for, what a failover could forget is not acted upon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from signer.adapters.challenge_store import RedisChallengeStore
from signer.adapters.redis_calls import ReplicaWait
from signer.adapters.redis_client import RedisSettings, open_redis
from signer.application.ports import ClaimOutcome
from signer.domain.lifecycle import ChallengeState
from tests.challenge_stores import SETTINGS, SUBMISSION, claim_mine, claim_of, fails_saying, open_store, sign
from tests.lossy_proxy import LossyProxy
from tests.servers import RedisServer, valkey

WAITING = replace(SETTINGS, replica_wait=ReplicaWait(replicas=1, timeout=timedelta(milliseconds=400)))


@pytest.fixture
def replica(server: RedisServer) -> Iterator[RedisServer]:
    """A replica that follows the server."""
    with valkey() as replica:
        replica.follow(server)
        yield replica


@pytest.fixture
async def store(server: RedisServer, replica: RedisServer) -> AsyncIterator[RedisChallengeStore]:
    """A store that waits for the replica."""
    async with open_store(server.url, WAITING) as store:
        yield store


async def test_what_is_answered_is_known_to_the_replica(store: RedisChallengeStore, replica: RedisServer) -> None:
    """Killed now, the primary would take nothing along."""
    held = await sign(store, claim_of())
    async with open_store(replica.url) as reader:
        assert await reader.get(held.record.id) == held.record


async def test_nothing_is_signed_while_the_replica_is_behind(store: RedisChallengeStore, replica: RedisServer) -> None:
    """Neither a claim nor a signature is handed out, and neither is read."""
    lease = await claim_mine(store, claim_of("nonce0001"))
    replica.pause()
    await fails_saying("Too few replicas", store.claim(claim_of("nonce0002")))
    await fails_saying("Too few replicas", store.record_signature(lease, SUBMISSION))
    await fails_saying("Too few replicas", store.get(lease.id))
    await fails_saying("Too few replicas", store.find(claim_of().customer_id, claim_of().owner))
    await fails_saying("Too few replicas", store.claim(claim_of("nonce0001")))
    replica.resume()
    known = await store.claim(claim_of("nonce0001"))
    assert (known.outcome, known.record.state) == (ClaimOutcome.KNOWN, ChallengeState.FORWARDING)


async def test_nothing_is_sent_while_the_replica_is_behind(store: RedisChallengeStore, replica: RedisServer) -> None:
    """A stored signature is taken over only where a failover would remember it."""
    held = await sign(store, claim_of())
    await store.defer(held.lease, "card_api_busy", timedelta(0))
    replica.pause()
    await fails_saying("Too few replicas", store.begin_forwarding(held.record.id))
    replica.resume()


async def test_an_end_is_written_without_the_replica(store: RedisChallengeStore, replica: RedisServer) -> None:
    """A lost ending is only delivered again, under its key; so it waits for nobody, and can be read."""
    held = await sign(store, claim_of())
    replica.pause()
    await store.settle(held.lease, ChallengeState.VERIFIED, None)
    record = await store.get(held.record.id)
    assert record is not None
    assert record.state is ChallengeState.VERIFIED
    replica.resume()


async def test_a_repeated_claim_vouches_for_the_first_one(
    server: RedisServer,
    replica: RedisServer,
    proxy: LossyProxy,
) -> None:
    """The repetition changes nothing and comes by another connection; its ``WAIT`` counts the first one's write."""
    async with open_store(proxy.url, WAITING) as store:
        await store.claim(claim_of("nonce0001"))
        replica.pause()
        proxy.lose_next()
        await fails_saying("Too few replicas", store.claim(claim_of("nonce0002")))
        assert proxy.lost == 1
        replica.resume()


async def test_waiting_for_replicas_has_to_fit_into_a_call(server: RedisServer) -> None:
    """Else the call would end before its confirmation could come."""
    redis = await open_redis(RedisSettings(url=server.url, call_timeout=timedelta(milliseconds=400)))
    with pytest.raises(ValueError, match="shorter"):
        RedisChallengeStore(redis, WAITING)
    await redis.close()
