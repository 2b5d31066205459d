"""The rows of the contract: the fake, Valkey by each kind of connection and as a cluster, and Debian's Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from signer.adapters.redis_store.client import open_redis
from signer.adapters.redis_store.settings import RedisSettings
from signer.application.ports import ChallengeStore
from tests.challenge_stores import FakeUnderTest, RedisUnderTest, StoreUnderTest
from tests.servers import RedisServer, debian_redis, valkey

ROWS = (
    "fake",
    "valkey-unix",
    "valkey-tcp",
    "valkey-cluster",
    pytest.param("redis", marks=pytest.mark.needs("redis-server")),
)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """A Valkey for the whole run."""
    with valkey() as server:
        yield server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[RedisServer]:
    """A cluster of one node, which refuses a script whose keys are not all on one slot."""
    with valkey("--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while "cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            pass
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Debian's Redis for the whole run."""
    with debian_redis() as server:
        yield server


@pytest.fixture(params=ROWS)
async def under_test(request: pytest.FixtureRequest) -> AsyncIterator[StoreUnderTest]:
    """One row."""
    row: str = request.param
    if row == "fake":
        yield FakeUnderTest()
        return
    fixture = {"valkey-cluster": "cluster_server", "redis": "redis_server"}.get(row, "valkey_server")
    server: RedisServer = request.getfixturevalue(fixture)
    redis = await open_redis(RedisSettings(url=server.url if row == "valkey-unix" else server.tcp_url))
    yield RedisUnderTest(server, redis)
    await redis.close()


@pytest.fixture
def store(under_test: StoreUnderTest) -> ChallengeStore:
    """One replica's store."""
    return under_test.replica()


@pytest.fixture
def other(under_test: StoreUnderTest) -> ChallengeStore:
    """Another replica's store over the same records."""
    return under_test.replica()
