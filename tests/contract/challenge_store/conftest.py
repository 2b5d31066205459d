"""The stores that the contract is tested on: the fake, Valkey by each kind of connection and topology, and Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import pytest

from signer.adapters.redis_client.opening import open_redis
from signer.application.ports import ChallengeStore
from tests.support.challenge_stores import SETTINGS, FakeUnderTest, RedisUnderTest, StoreUnderTest, changed
from tests.support.servers import RedisServer, debian_redis, valkey
from tests.support.topologies import ClusterSite, SentinelSite, cluster_site, sentinel_site

_PATIENCE_SECONDS: Final = 30.0

STORES = (
    "fake",
    "valkey-unix",
    "valkey-tcp",
    "valkey-one-node-cluster",
    "valkey-sentinel",
    "valkey-cluster",
    pytest.param("redis", marks=pytest.mark.needs("redis-server")),
)


@pytest.fixture(scope="package")
def valkey_server() -> Iterator[RedisServer]:
    """A Valkey for all tests of this folder."""
    with valkey() as server:
        yield server


@pytest.fixture(scope="package")
def strict_server() -> Iterator[RedisServer]:
    """A cluster of one node, which refuses a script whose keys are not all on one slot."""
    with valkey("--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        ends = time.monotonic() + 30
        while "cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < ends, "the cluster of one node does not become ready"
            time.sleep(0.01)
        yield server


@pytest.fixture(scope="package")
def sentinels() -> Iterator[SentinelSite]:
    """A primary, two replicas and three Sentinels, patient enough for a slow machine."""
    with sentinel_site(down_after=_PATIENCE_SECONDS) as site:
        yield site


@pytest.fixture(scope="package")
def cluster() -> Iterator[ClusterSite]:
    """Three primaries with a replica each."""
    with cluster_site(timeout=_PATIENCE_SECONDS) as site:
        yield site


@pytest.fixture(scope="package")
def redis_server() -> Iterator[RedisServer]:
    """Debian's Redis, for all of them."""
    with debian_redis() as server:
        yield server


@pytest.fixture(params=STORES)
async def under_test(request: pytest.FixtureRequest) -> AsyncIterator[StoreUnderTest]:
    """One of the stores."""
    row: str = request.param
    if row == "fake":
        yield FakeUnderTest()
        return
    url, primaries = _servers(request, row)
    redis = await open_redis(changed(SETTINGS, url=url))
    yield RedisUnderTest(redis, *primaries)
    await redis.close()


def _servers(request: pytest.FixtureRequest, row: str) -> tuple[str, Sequence[RedisServer]]:
    """Return a store's URL, and its primaries."""
    if row == "valkey-cluster":
        cluster: ClusterSite = request.getfixturevalue("cluster")
        return cluster.url, cluster.nodes[: cluster.primaries]
    if row == "valkey-sentinel":
        site: SentinelSite = request.getfixturevalue("sentinels")
        return site.url, site.servers[:1]
    fixture = {"valkey-one-node-cluster": "strict_server", "redis": "redis_server"}.get(row, "valkey_server")
    server: RedisServer = request.getfixturevalue(fixture)
    return (server.url if row == "valkey-unix" else server.tcp_url), [server]


@pytest.fixture
def store(under_test: StoreUnderTest) -> ChallengeStore:
    """One replica's store."""
    return under_test.replica()


@pytest.fixture
def other(under_test: StoreUnderTest) -> ChallengeStore:
    """Another replica's store over the same records."""
    return under_test.replica()
