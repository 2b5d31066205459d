"""No connection stays open: calls that are cancelled or still connecting, closed clients, and replaced servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.opening import open_redis, open_server
from signer.adapters.redis_client.refresher import REFRESH_INTERVAL_SECONDS
from signer.adapters.redis_client.sentinel import POLL_SECONDS
from signer.adapters.redis_client.settings import RedisSettings
from signer.domain.errors import Unavailable
from tests.support.servers import RedisServer
from tests.support.topologies import ClusterSite, SentinelSite, cluster_site, sentinel_site

STEPS = 24
"""Iterations of the event loop that a call takes at most until its reply arrives, login included."""


@pytest.fixture
def login(server: RedisServer, tmp_path: Path) -> RedisSettings:
    """Settings with which every new connection sends ``AUTH`` and ``SELECT`` before its first command."""
    server.command("ACL", "SETUSER", "signer", "on", ">a password", "+@all", "~*")
    (tmp_path / "password").write_text("a password")
    return RedisSettings(url=f"{server.tcp_url}/1", username="signer", password_file=tmp_path / "password")


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelSite]:
    """A primary, a replica and three Sentinels."""
    with sentinel_site(replicas=1, down_after=30) as site:
        yield site


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSite]:
    """Three primaries."""
    with cluster_site(replicas=0, timeout=30) as site:
        yield site


def _open_sockets() -> int:
    """Return how many file descriptors the event loop watches, its own included."""
    return len(asyncio.get_running_loop()._selector.get_map())  # type: ignore[attr-defined]


async def _steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _start_calls(redis: RedisCalls, count: int = 4) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(redis.command("PING")) for _ in range(count)]


async def test_cancelled_calls_leave_no_connection_open(login: RedisSettings) -> None:
    """At every step of connecting, logging in, sending and receiving; and the other calls get their own replies."""
    before = _open_sockets()
    for step in range(STEPS):
        redis = await open_redis(login)
        calls = await _start_calls(redis)
        await _steps(step)
        calls[0].cancel()
        _, *others = await asyncio.gather(*calls, return_exceptions=True)
        assert others == [b"PONG"] * 3, f"cancelled after {step} steps"
        await redis.close()
        assert _open_sockets() == before, f"cancelled after {step} steps"


async def test_close_during_calls_fails_them_and_leaves_no_connection_open(login: RedisSettings) -> None:
    """At every step; a call that is still connecting does not open a connection that nothing closes."""
    before = _open_sockets()
    for step in range(STEPS):
        redis = await open_redis(login)
        calls = await _start_calls(redis)
        await _steps(step)
        await redis.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await _steps(3)
        assert _open_sockets() == before, f"closed after {step} steps"
        assert all(result == b"PONG" or isinstance(result, Unavailable) for result in results), results
        with pytest.raises(Unavailable):
            await redis.command("PING")
        assert _open_sockets() == before


async def test_cancelled_close_leaves_no_connection_open(login: RedisSettings) -> None:
    """A refresh that closes a replaced node can be cancelled; the node is not in any list any more."""
    before = _open_sockets()
    node = open_server(login, login.parsed_url.addresses[0])
    await _ping(node)
    closing = asyncio.create_task(node.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await _steps(3)
    assert _open_sockets() == before


async def test_sentinel_client_closed_during_refresh_opens_no_connection(sentinels: SentinelSite) -> None:
    """Neither the next poll nor a call starts a refresh of a closed client."""
    before = _open_sockets()
    for step in range(0, STEPS, 2):
        redis = await open_redis(RedisSettings(url=sentinels.url))
        calls = await _start_calls(redis)
        await _steps(step)
        await redis.close()
        await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(Unavailable):
            await redis.command("PING")
        await _steps(3)
        assert _open_sockets() == before, f"closed after {step} steps"
    await asyncio.sleep(POLL_SECONDS + REFRESH_INTERVAL_SECONDS)
    assert _open_sockets() == before


async def test_cluster_client_closed_during_calls_opens_no_connection(cluster: ClusterSite) -> None:
    """Also when the client has not found the nodes yet, and when it knows them."""
    before = _open_sockets()
    for step in range(0, 3 * STEPS, 3):
        redis = await open_redis(RedisSettings(url=cluster.url))
        calls = [asyncio.create_task(redis.command("GET", f"key{n}", key=f"key{n}")) for n in range(4)]
        await _steps(step)
        await redis.close()
        await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(Unavailable):
            await redis.command("PING")
        await _steps(3)
        assert _open_sockets() == before, f"closed after {step} steps"


async def test_close_fails_calls_in_progress(server: RedisServer) -> None:
    """At once, whatever their deadline is."""
    settings = RedisSettings(url=server.tcp_url)
    node = open_server(settings, settings.parsed_url.addresses[0])
    deadline = asyncio.get_running_loop().time() + 60
    await _ping(node)
    server.pause()
    try:
        calls = [asyncio.create_task(node.send([("PING",)], deadline)) for _ in range(3)]
        await asyncio.sleep(0)  # all are sent
        async with asyncio.timeout(5):
            await node.close()
            results = await asyncio.gather(*calls, return_exceptions=True)
            with pytest.raises(RedisConnectionError, match="closed"):
                await node.send([("PING",)], deadline)
        assert all(isinstance(result, RedisConnectionError) for result in results), results
    finally:
        server.resume()


async def _ping(node: Node) -> None:
    assert await node.send([("PING",)], asyncio.get_running_loop().time() + 10) == [b"PONG"]
