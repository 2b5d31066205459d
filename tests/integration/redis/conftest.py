"""A server that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_store import scripts
from tests.support.challenge_stores import SETTINGS, changed
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.lossy_proxy import LossyProxy, lossy_proxy
from tests.support.servers import RedisServer, valkey

SCRIPTS = (
    *("CLAIM", "RECORD_SIGNATURE", "RELEASE", "BEGIN_FORWARDING", "DEFER", "SETTLE", "EXPIRE"),
    *("END_DAMAGED", "DUE", "SIFT", "PROBE"),
)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Valkey for one test. It knows the scripts, so the first reply to each call is that of the script."""
    with valkey() as server:
        for name in SCRIPTS:
            server.command("SCRIPT", "LOAD", getattr(scripts, name).source)
        yield server


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[LossyProxy]:
    """A proxy in front of it."""
    async with lossy_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def log() -> FakeDamageLog:
    """What the store reports."""
    return FakeDamageLog()


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[RedisCalls]:
    """An open Redis."""
    redis = await open_redis(changed(SETTINGS, url=server.url))
    yield redis
    await redis.close()
