"""All calls to a server share one connection, and all ``WAIT``s a second one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signer.adapters.redis_client.failures import CannotConnect
from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.opening import open_server
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.shared_connection import Command
from signer.adapters.redis_client.urls import Address
from tests.support.servers import RedisServer, valkey
from tests.support.topologies import wait_until

PING: Sequence[Command] = [("PING",)]
ENOUGH = 30.0


def confirmed(number: int, replicas: int = 1) -> Sequence[Command]:
    """Return a write and what waits for its replicas."""
    return [("SET", f"key{number}", "x"), ("SET", "mark", "", "PX", 60_000), ("WAIT", replicas, 10_000)]


def in_(seconds: float) -> float:
    """Return a deadline."""
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def open_node(url: str, *, waits: bool = False) -> AsyncIterator[Node]:
    """Open a node at ``url``."""
    settings = RedisSettings(url=url, wait_for_replicas=int(waits))
    node = open_server(settings, settings.parsed_url.addresses[0])
    try:
        yield node
    finally:
        await node.close()


@pytest.fixture
def replica(server: RedisServer) -> Iterator[RedisServer]:
    """A replica of ``server``, in step with it."""
    with valkey() as replica:
        replica.follow(server)
        wait_until(lambda: server.command("WAIT", 1, 100) == 1, "the replica does not follow")
        yield replica


async def test_many_concurrent_calls_use_one_connection(server: RedisServer) -> None:
    """Each gets its own response."""
    before = server.command("INFO", "stats")["total_connections_received"]
    async with open_node(server.tcp_url) as node:
        responses = await asyncio.gather(*(node.send([("ECHO", f"{n}")], in_(ENOUGH)) for n in range(200)))
    assert responses == [[str(n).encode()] for n in range(200)]
    after = server.command("INFO", "stats")["total_connections_received"]
    assert after - before == 1 + 1, "one connection for the calls, one for INFO"


async def test_call_with_earlier_deadline_fails_alone(server: RedisServer) -> None:
    """The server has had time to respond to the older call, so the connection stays."""
    async with open_node(server.tcp_url) as node:
        await node.send(PING, in_(ENOUGH))
        server.pause()
        try:
            older = asyncio.create_task(node.send(PING, in_(ENOUGH)))
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await node.send([("ECHO", "late")], in_(0.05))
        finally:
            server.resume()
        assert await older == [b"PONG"]
        assert await node.send([("ECHO", "next")], in_(ENOUGH)) == [b"next"]
        assert server.command("INFO", "clients")["connected_clients"] == 1 + 1


async def test_call_whose_deadline_has_passed_harms_no_other(server: RedisServer) -> None:
    """It is not sent, and the connection stays."""
    async with open_node(server.tcp_url) as node:
        await node.send(PING, in_(ENOUGH))
        server.command("CONFIG", "RESETSTAT")
        older = asyncio.create_task(node.send([("ECHO", "older")], in_(ENOUGH)))
        with pytest.raises(TimeoutError):
            await node.send(PING, in_(-1))
        assert await older == [b"older"]
        assert await node.send([("ECHO", "next")], in_(ENOUGH)) == [b"next"]
        assert "cmdstat_ping" not in server.command("INFO", "commandstats")
        assert server.command("INFO", "clients")["connected_clients"] == 1 + 1


async def test_call_that_is_sent_just_before_its_deadline_harms_no_other(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with uvloop, whose ``call_at`` returns a handle without ``when`` if the time has passed by then."""
    loop = asyncio.get_running_loop()
    async with open_node(server.tcp_url) as node:
        await node.send(PING, in_(ENOUGH))
        assert node._connections is not None
        with monkeypatch.context() as patched:
            patched.setattr(loop, "call_at", lambda _when, callback: loop.call_soon(callback))
            first = node._connections.calls.call(PING, in_(ENOUGH))
            second = node._connections.calls.call(PING, in_(ENOUGH / 2))
        assert (await first, await second) == ([b"PONG"], [b"PONG"])


async def test_calls_behind_a_late_one_fail_with_it(server: RedisServer) -> None:
    """A server that hangs would respond to them as late. The next call connects anew."""
    async with open_node(server.tcp_url) as node:
        await node.send(PING, in_(ENOUGH))
        server.pause()
        try:
            late = asyncio.create_task(node.send(PING, in_(0.05)))
            await asyncio.sleep(0)
            behind = asyncio.create_task(node.send(PING, in_(ENOUGH)))
            with pytest.raises(TimeoutError):
                await late
            with pytest.raises(RedisConnectionError, match="earlier call"):
                await behind
        finally:
            server.resume()
        assert await node.send(PING, in_(ENOUGH)) == [b"PONG"]


async def test_wait_delays_no_other_call(server: RedisServer, replica: RedisServer) -> None:
    """A replica that hangs holds the calls that wait for it, and no others."""
    async with open_node(server.tcp_url, waits=True) as node:
        replica.pause()
        try:
            waiting = asyncio.create_task(node.send(confirmed(1), in_(ENOUGH)))
            for _ in range(20):
                assert await node.send(PING, in_(ENOUGH)) == [b"PONG"]
            assert server.command("GET", "key1") == "x"
            assert not waiting.done()
        finally:
            replica.resume()
        assert (await waiting)[-1] == 1


async def test_one_wait_serves_all_calls_before_it(server: RedisServer, replica: RedisServer) -> None:
    """100 calls at the same time need a few, and each is confirmed."""
    del replica
    async with open_node(server.tcp_url, waits=True) as node:
        await node.send(confirmed(0), in_(ENOUGH))
        server.command("CONFIG", "RESETSTAT")
        responses = await asyncio.gather(*(node.send(confirmed(n), in_(ENOUGH)) for n in range(100)))
        assert [response[-1] for response in responses] == [1] * 100
        assert server.command("INFO", "commandstats")["cmdstat_wait"]["calls"] <= 5


async def test_wait_that_was_sent_before_a_call_does_not_confirm_it(server: RedisServer, replica: RedisServer) -> None:
    """The second write comes while the ``WAIT`` of the first runs: it needs the next one."""
    async with open_node(server.tcp_url, waits=True) as node:
        await node.send(confirmed(0), in_(ENOUGH))
        server.command("CONFIG", "RESETSTAT")
        replica.pause()
        try:
            first = asyncio.create_task(node.send(confirmed(1), in_(ENOUGH)))
            await asyncio.to_thread(wait_until, lambda: server.command("GET", "key1") == "x", "not written")
            second = asyncio.create_task(node.send(confirmed(2), in_(ENOUGH)))
            await asyncio.to_thread(wait_until, lambda: server.command("GET", "key2") == "x", "not written")
        finally:
            replica.resume()
        assert [(await first)[-1], (await second)[-1]] == [1, 1]
        assert server.command("INFO", "commandstats")["cmdstat_wait"]["calls"] == 2


async def test_wait_does_not_speak_for_a_restarted_server(server: RedisServer) -> None:
    """A server that was restarted between a call and its ``WAIT`` may have lost the write: the call has no response."""
    async with open_node(server.tcp_url, waits=True) as node:
        await node.send(confirmed(0, replicas=0), in_(ENOUGH))
        assert node._connections is not None
        held = asyncio.Event()
        node._connections._running = asyncio.create_task(_hold(held))
        call = asyncio.create_task(node.send(confirmed(1, replicas=0), in_(ENOUGH)))
        await asyncio.to_thread(wait_until, lambda: server.command("GET", "key1") == "x", "not written")
        await asyncio.to_thread(server.restart)
        held.set()
        with pytest.raises(RedisConnectionError):
            await call
        assert server.command("GET", "key1") is None
        assert (await node.send(confirmed(2, replicas=0), in_(ENOUGH)))[-1] == 0


async def _hold(event: asyncio.Event) -> list[object]:
    await event.wait()
    return []


@pytest.mark.parametrize("garbage", [b"no response\r\n", b"+OK\r\n+OK\r\n+OK\r\n", b"$-7\r\n"])
async def test_unreadable_or_unrequested_responses_end_the_connection(garbage: bytes) -> None:
    """Not the process, and no call gets the response to another one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    settings = RedisSettings(url="redis://127.0.0.1:1")
    node = open_server(settings, Address("127.0.0.1", server.sockets[0].getsockname()[1]))
    try:
        results = await asyncio.gather(
            node.send(PING, in_(ENOUGH)), node.send([("GET", "x")], in_(ENOUGH)), return_exceptions=True
        )
        unreadable = [result for result in results if isinstance(result, RedisConnectionError)]
        assert len(unreadable) == (0 if garbage.startswith(b"+OK") else 2)
        if node._connections is not None:
            await asyncio.to_thread(wait_until, lambda: not node._connections.calls.is_open, "still open")  # type: ignore[union-attr]
    finally:
        await node.close()
        server.close()
        await server.wait_closed()


async def test_server_that_hangs_at_the_login_blocks_later_calls_no_longer_than_connect_timeout(tmp_path: Path) -> None:
    """Calls share the opening of a connection, so it must end: the next call tries a new one."""
    connections = itertools.count()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_hanging = next(connections) == 0
        while data := await reader.read(1000):
            if not is_hanging:
                writer.write(b"+OK\r\n" if b"AUTH" in data else b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    (tmp_path / "password").write_text("a password")
    port = server.sockets[0].getsockname()[1]
    settings = RedisSettings(
        url=f"redis://127.0.0.1:{port}",
        password_file=tmp_path / "password",
        connect_timeout=timedelta(milliseconds=200),
    )
    node = open_server(settings, settings.parsed_url.addresses[0])
    try:
        with pytest.raises(CannotConnect):
            await node.send(PING, in_(ENOUGH))
        calls = 1
        async with asyncio.timeout(ENOUGH):
            while True:
                calls += 1
                with suppress(CannotConnect):  # on a busy machine also a login without a hang may take that long
                    assert await node.send(PING, in_(ENOUGH)) == [b"PONG"]
                    break
        assert next(connections) == calls
    finally:
        await node.close()
        server.close()
        await server.wait_closed()
