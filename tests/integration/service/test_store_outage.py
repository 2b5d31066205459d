"""Redis fails in each of its ways: the log and readiness name the cause, and the end with its duration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from tests.integration.service.site import Site, open_site
from tests.support.servers import RedisServer, valkey

PASSWORD = "a password"
Change = Callable[[RedisServer], object]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Valkey that a test may break."""
    with valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check often, and call an outage one after less time."""
    monkeypatch.setattr("signer.bootstrap.readiness_watch.EVERY", 0.1)
    monkeypatch.setattr("signer.bootstrap.readiness_watch.WHILE_FAILING", 0.1)
    monkeypatch.setattr("signer.application.outage.CONFIRMED_AFTER", 0.3)
    monkeypatch.setattr("signer.web.health.REUSE_FOR", timedelta(seconds=0.1))


def config(*parts: str) -> Change:
    """Return a change of the server's configuration."""
    return lambda server: server.command("CONFIG", "SET", *parts)


def require_password(server: RedisServer) -> None:
    """Require a password, and close the connections that were opened without one."""
    with redis.Redis(unix_socket_path=server.url.removeprefix("unix://"), single_connection_client=True) as client:
        client.config_set("requirepass", PASSWORD)
        client.client_kill_filter(_type="normal", skipme=True)


def require_no_password(server: RedisServer) -> None:
    """Require no password any more."""
    with redis.Redis(unix_socket_path=server.url.removeprefix("unix://"), password=PASSWORD) as client:
        client.config_set("requirepass", "")


def follow_nothing(server: RedisServer) -> None:
    """Become a replica of a primary that does not exist."""
    server.command("REPLICAOF", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("cause", "words", "break_it", "mend_it"),
    [
        ("unreachable", "cannot be reached", RedisServer.stop, RedisServer.start),
        ("timeout", "No response", RedisServer.pause, RedisServer.resume),
        ("authentication", "password", require_password, require_no_password),
        (
            "permission",
            "ACL",
            lambda server: server.command("ACL", "SETUSER", "default", "-zadd"),
            lambda server: server.command("ACL", "SETUSER", "default", "+zadd"),
        ),
        ("full", "maxmemory", config("maxmemory", "1"), config("maxmemory", "0")),
        (
            "read_only",
            "read-only replica",
            follow_nothing,
            lambda server: server.command("REPLICAOF", "NO", "ONE"),
        ),
        ("replication", "replicas", config("min-replicas-to-write", "1"), config("min-replicas-to-write", "0")),
    ],
)
async def test_outage_of_redis_is_named_with_its_cause_and_its_end(
    tmp_path: Path, server: RedisServer, cause: str, words: str, break_it: Change, mend_it: Change
) -> None:
    """No request has to arrive. The reason names the server; readiness has the reason without it."""
    async with open_site(tmp_path, server) as site:
        await asyncio.to_thread(break_it, server)
        down = await site.logged("store.down")
        assert (down["level"], down["cause"]) == ("error", cause)
        assert down["reason"].startswith(f"Redis at {server.url.removeprefix('unix://')}: ")
        assert words in down["reason"]
        assert "duration_ms" not in down
        not_ready = await site.logged("service.not_ready")
        assert (not_ready["level"], not_ready["checks"], not_ready["codes"]) == (
            "warning",
            ["redis"],
            ["store_unavailable"],
        )
        await asyncio.to_thread(mend_it, server)
        up = await site.logged("store.up")
        assert (up["level"], up["cause"]) == ("info", cause)
        assert up["duration_ms"] >= 300
        assert (await site.logged("service.ready_again"))["duration_ms"] > 0
        await signs(site)


async def test_missing_confirmations_are_an_outage(tmp_path: Path, server: RedisServer) -> None:
    """Redis works, and has fewer replicas than ``redis.wait_for_replicas``, so nothing can be signed."""
    async with open_site(tmp_path, server, redis={"wait_for_replicas": 1}) as site:
        down = await site.logged("store.down")
        assert (down["cause"], "Too few replicas" in down["reason"]) == ("replication", True)
        with valkey() as replica:
            await asyncio.to_thread(replica.follow, server)
            assert (await site.logged("store.up"))["cause"] == "replication"
            await signs(site)


async def test_redis_that_is_down_at_start_is_named(tmp_path: Path, server: RedisServer) -> None:
    """The service starts, and says why it is not ready."""
    server.stop()
    async with open_site(tmp_path, server) as site:
        assert (await site.logged("store.down"))["cause"] == "unreachable"
        await site.logged("service.not_ready")
        await asyncio.to_thread(server.start)
        await site.logged("store.up")
        await signs(site)


async def test_database_that_does_not_exist_is_named(tmp_path: Path, server: RedisServer) -> None:
    """The number in ``redis.url`` is wrong."""
    async with open_site(tmp_path, server, redis={"url": f"{server.url}?db=99"}) as site:
        assert (await site.logged("store.down"))["cause"] == "wrong_database"


async def test_failures_that_do_not_last_are_no_outage(tmp_path: Path, server: RedisServer) -> None:
    """Connections that are cut again and again are opened again."""
    async with open_site(tmp_path, server) as site:
        for _ in range(20):
            await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", "normal")
            await signs(site)
        assert not site.log.of("store.down", "service.not_ready")


async def signs(site: Site) -> None:
    """Sign and deliver one challenge."""
    record = await (await site.ask(*site.customer())).json()
    assert record["state"] == "verified", record
