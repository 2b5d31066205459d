"""Connections: slow clients, too many clients, and a replica that is leaving."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import cast

import pytest

from signer.web import connections
from signer.web.connections import PROBE_CONNECTIONS
from tests.integration.web.site import CUSTOMER, PROBLEM, Site, open_site

MINUTE = timedelta(minutes=1)
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def connections_of(site: Site) -> list[connections.Connection]:
    """Return the connections that the service has."""
    return cast("list[connections.Connection]", site.client.server.handler.connections)


async def used(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send one request over a connection, and read its response."""
    writer.write(GET)
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


async def left_open(site: Site, number: int) -> None:
    """Wait until the service has so many connections."""
    server = site.client.server.handler
    async with asyncio.timeout(20):
        while True:
            if len(server.connections) == number:
                return
            await asyncio.sleep(0.005)


async def busy(site: Site, stack: AsyncExitStack) -> asyncio.StreamWriter:
    """Open a connection with a request whose body is still to come, and wait until the service handles it."""
    before = len(connections_of(site))
    _, writer = await stack.enter_async_context(site.connection())
    fields = {**site.authorization, "Host": "x", "Content-Type": "application/json", "Content-Length": "100"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"POST /v1/customers HTTP/1.1\r\n{head}\r\n{{".encode())
    await left_open(site, before + 1)
    async with asyncio.timeout(20):
        while any(each.is_idle for each in connections_of(site)):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.005)
    return writer


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the service closes the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 20) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("is_used", [False, True])
async def test_client_that_sends_a_head_byte_by_byte_is_disconnected(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_used: bool
) -> None:
    """The limit is for the whole head, on a new connection and on one that was used."""
    if not is_used:
        monkeypatch.setattr(connections, "HEAD_WITHIN", 0.3)
    async with site.connection() as (reader, writer):
        if is_used:
            await used(reader, writer)
            monkeypatch.setattr(connections, "HEAD_WITHIN", 0.3)
        closed = asyncio.create_task(is_closed(reader))
        for byte in 100 * GET[:-4]:
            writer.write(bytes([byte]))
            if closed in (await asyncio.wait({closed}, timeout=0.02))[0]:
                break
        assert closed.done()
        assert await closed


@pytest.mark.parametrize(("limit", "is_used"), [("HEAD_WITHIN", False), ("IDLE_WITHIN", True)])
async def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch, limit: str, is_used: bool) -> None:
    """Both a connection that was never used and one that was."""
    monkeypatch.setattr(connections, limit, 0.3)
    async with open_site() as site, site.connection() as (reader, writer):
        if is_used:
            await used(reader, writer)
        assert await is_closed(reader)


async def test_limit_for_the_head_ends_with_the_head(site: Site) -> None:
    """A request may take longer."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.key.open.clear()
    request = asyncio.create_task(site.ask(challenge))
    await site.logged("challenge.claimed")
    (connection,) = site.client.server.handler.connections
    assert isinstance(connection, connections.Connection)
    assert connection._head_timer is None
    site.key.open.set()
    assert (await request).status == 200
    assert connection._head_timer is None


async def test_client_that_sends_requests_and_reads_nothing_is_disconnected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffers of the kernel are full, so that some bytes cannot be sent: the service frees the connection."""
    monkeypatch.setattr(connections, "WRITE_WITHIN", 0.3)

    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", site.port))
        await left_open(site, 1)
        (connection,) = site.client.server.handler.connections
        assert connection.transport is not None
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await asyncio.get_running_loop().sock_sendall(client, 200 * GET)  # their responses have 48 kB
        await left_open(site, 0)


async def test_connection_above_the_limit_is_refused_and_closed() -> None:
    """Its first request gets 503; when another connection has ended, a new one is served."""
    async with open_site(max_connections=2, answer_within=MINUTE) as site, AsyncExitStack() as stack:
        first, _ = [await busy(site, stack) for _ in range(2)]
        refused = await site.get("/v1/keys")
        problem = await refused.json()
        assert (refused.status, refused.content_type, problem["code"]) == (503, PROBLEM, "overloaded")
        assert (refused.headers["Retry-After"], refused.headers["Connection"]) == ("1", "close")
        first.transport.abort()
        await left_open(site, 1)
        served = await site.get("/v1/keys")
        assert (served.status, "Connection" in served.headers) == (200, False)


async def test_probes_are_served_above_the_limit_of_connections() -> None:
    """So a busy replica is not restarted; each probe gets one response."""
    async with open_site(max_connections=1, answer_within=MINUTE) as site, AsyncExitStack() as stack:
        await busy(site, stack)
        for path in ("/healthz", "/readyz"):
            response = await site.client.get(path)
            assert (response.status, response.headers["Connection"]) == (200, "close")


async def test_connections_far_above_the_limit_are_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for probes are limited too, while none is idle."""
    monkeypatch.setattr(connections.Connection, "is_idle", False)
    async with open_site(max_connections=1) as site, AsyncExitStack() as stack:
        for _ in range(1 + PROBE_CONNECTIONS):
            await stack.enter_async_context(site.connection())
        await left_open(site, 1 + PROBE_CONNECTIONS)
        reader, _ = await stack.enter_async_context(site.connection())
        assert await is_closed(reader)
        assert len(site.client.server.handler.connections) == 1 + PROBE_CONNECTIONS


@pytest.mark.parametrize("were_used", [False, True])
async def test_connection_that_is_idle_longest_makes_room_for_a_new_one(were_used: bool) -> None:
    """Strangers can only be idle, so they keep no caller out. One line in a minute says how many were closed."""
    async with open_site(max_connections=3, answer_within=MINUTE) as site, AsyncExitStack() as stack:
        await busy(site, stack)
        idle = [await stack.enter_async_context(site.connection()) for _ in range(2)]
        await left_open(site, 3)
        if were_used:
            for reader, writer in reversed(idle):
                await used(reader, writer)
            idle.reverse()
        new = [await stack.enter_async_context(site.connection()) for _ in range(1)]
        assert await is_closed(idle[0][0])
        for reader, writer in (idle[1], *new):
            await used(reader, writer)
        for _ in range(5):
            served = await site.get("/v1/keys")
            assert (served.status, "Connection" in served.headers) == (200, False)
            await stack.enter_async_context(site.connection())
        await left_open(site, 3)
        assert [line["count"] for line in site.log.of("http.connections_closed")] == [1]


async def test_replica_that_is_leaving_works_and_closes_each_connection(site: Site) -> None:
    """/readyz fails at once, /healthz does not; requests are served, on old and new connections."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    assert (await site.get("/readyz")).status == 200
    site.http.leave()
    for response in (await site.ask(challenge), await site.get("/v1/keys"), await site.get("/healthz")):
        assert (response.status, response.headers["Connection"]) == (200, "close")
    unready = await site.get("/readyz")
    problem = await unready.json()
    assert (unready.status, problem["code"]) == (503, "shutting_down")
    assert (unready.headers["Retry-After"], unready.headers["Connection"]) == ("1", "close")


async def test_response_to_a_request_from_before_leaving_closes_its_connection(site: Site) -> None:
    """The caller learns it as early as possible."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.key.open.clear()
    request = asyncio.create_task(site.ask(challenge))
    await site.logged("challenge.claimed")
    site.http.leave()
    site.key.open.set()
    response = await request
    assert (response.status, response.headers["Connection"]) == (200, "close")
