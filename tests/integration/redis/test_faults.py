"""What a broken Redis does to the store: a typed error that says what to do, and nothing half-done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from signer.adapters.challenge_store import RedisChallengeStore
from signer.adapters.redis_client import RedisSettings, open_redis
from signer.application.ports import ChallengeStore, Lease
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.challenge_stores import SUBMISSION, claim_mine, claim_of, sign
from tests.lossy_proxy import lossy_proxy
from tests.servers import RedisServer, valkey

QUICK = timedelta(milliseconds=300)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Valkey that the test may break."""
    with valkey() as server:
        yield server


@asynccontextmanager
async def _store(
    url: str,
    *,
    call_timeout: timedelta = timedelta(seconds=5),
    max_connections: int = 64,
) -> AsyncIterator[RedisChallengeStore]:
    settings = RedisSettings(
        url=url, call_timeout=call_timeout, max_connections=max_connections, pool_wait=timedelta(milliseconds=100)
    )
    redis = await open_redis(settings)
    try:
        yield RedisChallengeStore(redis)
    finally:
        await redis.close()


async def _fails(call: Awaitable[object], saying: str) -> None:
    with pytest.raises(Unavailable, match=saying) as failed:
        await call
    assert failed.value.code is ErrorCode.STORE_UNAVAILABLE
    assert failed.value.retry_after > 0


# --- answers that are lost -----------------------------------------------------------------------------------------------


async def _claimed(store: ChallengeStore) -> Lease:
    return await claim_mine(store, claim_of())


async def _forwarding(store: ChallengeStore) -> Lease:
    return (await sign(store, claim_of())).lease


@pytest.mark.parametrize(
    ("before", "move", "state", "attempts"),
    [
        (_claimed, lambda s, lease: s.record_signature(lease, SUBMISSION), ChallengeState.FORWARDING, 1),
        (_claimed, lambda s, lease: s.release(lease, "a_reason"), ChallengeState.RELEASED, 0),
        (_forwarding, lambda s, lease: s.defer(lease, "a_reason", timedelta(0)), ChallengeState.SIGNED, 1),
        (_forwarding, lambda s, lease: s.settle(lease, ChallengeState.VERIFIED, None), ChallengeState.VERIFIED, 1),
    ],
    ids=["record_signature", "release", "defer", "settle"],
)
async def test_a_move_whose_answer_is_lost_is_made_once_and_answered(
    server: RedisServer,
    before: Callable[[ChallengeStore], Awaitable[Lease]],
    move: Callable[[ChallengeStore, Lease], Awaitable[object]],
    state: ChallengeState,
    attempts: int,
) -> None:
    """The connection is cut after the commit; the caller notices nothing."""
    async with lossy_proxy(server.url) as proxy, _store(proxy.url) as store:
        await store.ping()
        lease = await before(store)
        await (await store._redis.script(_NOTHING, (), ()) and asyncio.sleep(0))
        proxy.lose_next()
        await move(store, lease)
        assert proxy.lost == 1
        record = await store.get(lease.id)
        assert record is not None
        assert (record.state, record.attempts, record.fence) == (state, attempts, 1)
