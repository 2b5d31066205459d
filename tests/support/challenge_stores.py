"""The challenge stores that suites run on, the fake and the real one alike, each with a way to let time pass.

Nothing waits: the fake's clock is moved ahead, and in Redis every stored instant is moved back by as much, time-to-live
included. So leases and deadlines may be long, and a slow machine ends none of them by surprise.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import pytest

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore, StoreSettings
from signer.application.ports import ChallengeStore, Claim, ClaimOutcome, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import Submission, challenge_id
from tests.support.fakes.challenge_store import FakeChallengeStore, Shelf
from tests.support.servers import RedisServer

LEASE: Final = timedelta(seconds=20)
VALID_FOR: Final = timedelta(minutes=50)
RETENTION: Final = timedelta(hours=3)
SETTINGS: Final = StoreSettings(lease=LEASE, nonce_retention=RETENTION)

OWNER: Final = AccountId.parse("eip155:324:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
CUSTOMER: Final = "0191b1d6-4a4e-7c8e-9d4d-1a2b3c4d5e6f"
SUBMISSION: Final = Submission(b'{"ownerId":"an owner","challenge":"a text","signature":"a proof"}', "a proof")

_NUMBERS: Final = itertools.count()
_LET_TIME_PASS: Final = """
local by = tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then
    for _, field in ipairs({'expires_at', 'first_attempt_at', 'leased_until', 'due_at', 'created_at', 'updated_at'}) do
      local instant = tonumber(redis.call('HGET', key, field) or '')
      if instant then
        redis.call('HSET', key, field, instant - by)
      end
    end
  elseif kind == 'zset' then
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('ZINCRBY', key, -by, id)
    end
  end
  local ttl = redis.call('PTTL', key)
  if ttl > 0 then
    redis.call('PEXPIRE', key, ttl - by / 1000)
  end
end
"""


class StoreUnderTest(Protocol):
    """Where stores come from: each one is a replica's view of the same records."""

    def replica(self, new_token: Callable[[], str] | None = None) -> ChallengeStore:
        """Give another replica's store; ``new_token`` names its calls."""
        ...

    async def advance(self, by: timedelta) -> None:
        """Let time pass."""
        ...


class FakeUnderTest:
    """The fake."""

    def __init__(self) -> None:
        self._shelf = Shelf()

    def replica(self, new_token: Callable[[], str] | None = None) -> ChallengeStore:
        """See ``StoreUnderTest``."""
        if new_token is None:
            return FakeChallengeStore(self._shelf, SETTINGS)
        return FakeChallengeStore(self._shelf, SETTINGS, new_token=new_token)

    async def advance(self, by: timedelta) -> None:
        """See ``StoreUnderTest``."""
        self._shelf.advance(by)


class RedisUnderTest:
    """A real store. Each instance has a prefix of its own, so tests share the servers and nothing else."""

    def __init__(self, redis: RedisCalls, *primaries: RedisServer) -> None:
        self._primaries = primaries
        self._redis = redis
        self.prefix = f"test-{next(_NUMBERS)}"

    def replica(self, new_token: Callable[[], str] | None = None) -> ChallengeStore:
        """See ``StoreUnderTest``."""
        settings = replace(SETTINGS, prefix=self.prefix)
        if new_token is None:
            return RedisChallengeStore(self._redis, settings)
        return RedisChallengeStore(self._redis, settings, new_token=new_token)

    async def advance(self, by: timedelta) -> None:
        """See ``StoreUnderTest``."""
        for primary in self._primaries:
            primary.command("EVAL", _LET_TIME_PASS, 0, f"{self.prefix}:*", by // timedelta(microseconds=1))


def claim_of(
    nonce: str = "nonce0001",
    *,
    message: str = "a" * 64,
    customer_id: str = CUSTOMER,
    owner: AccountId = OWNER,
    forward: bool = True,
    valid_for: timedelta = VALID_FOR,
) -> Claim:
    """Make a claim for a message that was issued just now."""
    now = datetime.now(UTC)
    return Claim(
        id=challenge_id(owner, "api.example.org", nonce),
        message_hash=message,
        customer_id=customer_id,
        owner=owner,
        forward=forward,
        issued_at=now,
        expires_at=now + valid_for,
    )


async def claim_mine(store: ChallengeStore, claim: Claim) -> Lease:
    """Claim, and give the lease, which has to be ours."""
    claimed = await store.claim(claim)
    assert claimed.outcome is ClaimOutcome.GRANTED
    assert claimed.lease is not None
    return claimed.lease


async def sign(store: ChallengeStore, claim: Claim) -> LeasedRecord:
    """Claim and record the signature: ``forwarding`` or ``signed``, as the claim has it."""
    return await store.record_signature(await claim_mine(store, claim), SUBMISSION)


async def bring_to(
    store: ChallengeStore, state: ChallengeState, *, nonce: str = "nonce0001", forward: bool = True
) -> Lease:
    """Bring a new record to ``state`` (``signed``: deferred for 1 s); gives the last lease on it, which may be over."""
    claim = claim_of(nonce, forward=forward)
    lease = await claim_mine(store, claim)
    if state is ChallengeState.RELEASED:
        await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    if state in {ChallengeState.CLAIMED, ChallengeState.RELEASED}:
        return lease
    held = await store.record_signature(lease, SUBMISSION)
    if state is ChallengeState.SIGNED and forward:
        await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(seconds=1))
    elif state.is_final:
        await store.settle(held.lease, state, RecordCode.CARD_API_BUSY)
    return held.lease


@asynccontextmanager
async def open_store(
    url: str,
    settings: StoreSettings = SETTINGS,
    *,
    call_timeout: timedelta = timedelta(seconds=10),
    connections: int = 64,
    pool_wait: timedelta = timedelta(seconds=10),
) -> AsyncIterator[RedisChallengeStore]:
    """Open a store over the server at ``url``, patient by default."""
    redis = await open_redis(
        RedisSettings(url=url, call_timeout=call_timeout, max_connections=connections, pool_wait=pool_wait),
    )
    try:
        yield RedisChallengeStore(redis, settings)
    finally:
        await redis.close()


async def fails_saying(words: str, call: Awaitable[object]) -> None:
    """Hold that ``call`` fails as a store does, with a detail that has ``words``."""
    with pytest.raises(Unavailable, match=words) as failed:
        await call
    assert failed.value.code is ErrorCode.STORE_UNAVAILABLE
    assert failed.value.retry_after > 0
