"""The challenge stores that suites test, the fake and the real one, each with a method that lets time pass.

No test sleeps: the fake's clock is set ahead, and in Redis every stored instant, time-to-live included, is set back. So
leases and deadlines can be long, and a slow machine ends none of them too early.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import pytest

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.application.ports import ChallengeStore, Claim, ClaimOutcome, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import Submission, challenge_id
from tests.support.fakes.challenge_store import FakeChallengeStore, Shelf
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.servers import RedisServer

LEASE: Final = timedelta(seconds=20)
VALID_FOR: Final = timedelta(minutes=50)
RETENTION: Final = timedelta(hours=3)
MAX_AGE: Final = timedelta(hours=1)
SETTINGS: Final = RedisSettings(
    lease=LEASE,
    nonce_retention=RETENTION,
    connect_timeout=timedelta(seconds=20),
    command_timeout=timedelta(seconds=10),
)

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
    """A source of stores: each one is one replica's view of the same records."""

    def replica(self, new_token: Callable[[], str] | None = None) -> ChallengeStore:
        """Return another replica's store; ``new_token`` names its calls."""
        ...

    async def advance(self, by: timedelta) -> None:
        """Let time pass."""
        ...

    def emptied(self) -> StoreUnderTest:
        """Return a source of stores without records."""
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

    def emptied(self) -> StoreUnderTest:
        """See ``StoreUnderTest``."""
        return FakeUnderTest()


class RedisUnderTest:
    """A real store. Each instance has its own key prefix, so tests share the servers and nothing else."""

    def __init__(self, redis: RedisCalls, *primaries: RedisServer) -> None:
        self._primaries = primaries
        self._redis = redis
        self.settings = changed(SETTINGS, key_prefix=f"test-{next(_NUMBERS)}")

    def replica(self, new_token: Callable[[], str] | None = None) -> ChallengeStore:
        """See ``StoreUnderTest``."""
        return real_store(self._redis, self.settings, new_token)

    async def advance(self, by: timedelta) -> None:
        """See ``StoreUnderTest``."""
        keys = f"{self.settings.key_prefix}:*"
        for primary in self._primaries:
            primary.command("EVAL", _LET_TIME_PASS, 0, keys, by // timedelta(microseconds=1))

    def emptied(self) -> StoreUnderTest:
        """See ``StoreUnderTest``."""
        return RedisUnderTest(self._redis, *self._primaries)


def changed(settings: RedisSettings, **changes: Any) -> RedisSettings:  # noqa: ANN401 - any setting
    """Return the settings with changes, validated."""
    return RedisSettings.model_validate({**dict(settings), **changes})


def real_store(
    redis: RedisCalls,
    settings: RedisSettings = SETTINGS,
    new_token: Callable[[], str] | None = None,
    damage_log: FakeDamageLog | None = None,
) -> RedisChallengeStore:
    """Return a store over an open Redis."""
    log = damage_log or FakeDamageLog()
    if new_token is None:
        return RedisChallengeStore(redis, settings, max_age=MAX_AGE, damage_log=log)
    return RedisChallengeStore(redis, settings, max_age=MAX_AGE, damage_log=log, new_token=new_token)


def claim_of(
    nonce: str = "nonce0001",
    *,
    message: str = "a" * 64,
    customer_id: str = CUSTOMER,
    owner: AccountId = OWNER,
    forward: bool = True,
    valid_for: timedelta = VALID_FOR,
) -> Claim:
    """Return a claim for a message that was issued just now."""
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


async def claim_granted(store: ChallengeStore, claim: Claim) -> Lease:
    """Claim and return the lease; fail if the claim is not granted."""
    claimed = await store.claim(claim)
    assert claimed.outcome is ClaimOutcome.GRANTED
    assert claimed.lease is not None
    return claimed.lease


async def sign(store: ChallengeStore, claim: Claim) -> LeasedRecord:
    """Claim and record the signature: ``forwarding`` or ``signed``, depending on ``claim.forward``."""
    return await store.record_signature(await claim_granted(store, claim), SUBMISSION)


async def bring_to(
    store: ChallengeStore, state: ChallengeState, *, nonce: str = "nonce0001", forward: bool = True
) -> Lease:
    """Bring a new record to ``state`` (``signed``: deferred for 1 s); return its last lease, which may have ended."""
    claim = claim_of(nonce, forward=forward)
    lease = await claim_granted(store, claim)
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
async def open_store(url: str, **changes: Any) -> AsyncIterator[RedisChallengeStore]:  # noqa: ANN401 - any setting
    """Open a store over the server at ``url``, with ``SETTINGS`` and these changes."""
    settings = changed(SETTINGS, url=url, **changes)
    redis = await open_redis(settings)
    try:
        yield real_store(redis, settings)
    finally:
        await redis.close()


async def assert_unavailable(detail: str, call: Awaitable[object]) -> None:
    """Assert that ``call`` raises ``Unavailable`` with a detail that matches the pattern ``detail``."""
    with pytest.raises(Unavailable, match=detail) as failed:
        await call
    assert failed.value.code is ErrorCode.STORE_UNAVAILABLE
    assert failed.value.retry_after > 0
