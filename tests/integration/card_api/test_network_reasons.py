"""A call without a response says what has happened on the network, and which call it was."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.client import CardApiClient
from signer.domain.errors import SignerError
from tests.integration.card_api.calling import CUSTOMER, SOON, deliver_something, make_client
from tests.integration.card_api.conftest import StartRaw
from tests.integration.card_api.raw_server import token_response
from tests.support.certificates import CertificateAuthority


async def reason_of_check(client: CardApiClient) -> tuple[str, str]:
    """Check readiness, which must fail; return the cause and the reason of the outage."""
    with pytest.raises(SignerError) as refusal:
        await client.check()
    assert refusal.value.detail == client.outage.reason
    return client.outage.cause, client.outage.reason


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port that lets each new connection wait: the queue of its listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_unknown_host_is_named_as_failure_of_dns(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """RFC 6761 §6.4: ``.invalid`` has no address."""
    client = make_client("https://card-api.invalid/v1", session, tmp_path, read_attempts=1)
    cause, reason = await reason_of_check(client)
    assert cause == "unreachable"
    assert reason == (
        "The card API cannot be reached for POST auth/token, because DNS does not resolve its host name; check "
        "card_api.base_url and this machine's DNS."
    )


async def test_refused_connection_is_named(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Nothing listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = make_client(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", session, tmp_path, read_attempts=1)
        cause, reason = await reason_of_check(client)
    assert cause == "unreachable"
    assert reason.startswith(
        "The card API cannot be reached for POST auth/token, because it refuses the connection; check "
    )


async def test_connection_that_nothing_accepts_is_named_with_its_time(
    session: aiohttp.ClientSession, tmp_path: Path, full_port: int
) -> None:
    """As behind a firewall that drops packets."""
    client = make_client(
        f"http://127.0.0.1:{full_port}/v1",
        session,
        tmp_path,
        read_attempts=1,
        connect_timeout=timedelta(seconds=0.2),
    )
    cause, reason = await reason_of_check(client)
    assert cause == "unreachable"
    assert "for POST auth/token, because no connection within 0.2 s (DNS, TCP and TLS); check " in reason


async def test_short_call_without_connection_is_told_from_one_without_response(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, full_port: int
) -> None:
    """Its time is shorter than the longest for a connection, so that part of it is for the connection."""
    server = await start_raw(token_response())
    client = make_client(server.base_url, session, tmp_path)
    await client.authenticate(timeout=SOON)
    client._requests = make_client(f"http://127.0.0.1:{full_port}/v1", session, tmp_path)._requests
    await deliver_something(client, timedelta(seconds=1.2))
    assert client.outage.cause == "unreachable"
    assert "for POST challenge/sign, because no connection within " in client.outage.reason


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Read until the client closes the connection."""
    while await reader.read(1000):
        pass


@pytest.mark.parametrize(
    ("reply", "cause", "reason"),
    [
        (b"", "unreachable", "The card API closed the connection before it responded to {}."),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{",
            *("unreachable", "The card API closed the connection before its response to {} was complete."),
        ),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            *("invalid_response", "The card API's response to {} is not HTTP; check card_api.base_url and the proxies"),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{",
            *("invalid_response", "The card API's response to {} is longer than the 65536 bytes that are read; check "),
        ),
    ],
)
async def test_broken_response_is_named_with_its_call(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes, cause: str, reason: str
) -> None:
    """A challenge, a signature, and the call of readiness."""
    server = await start_raw(token_response(), reply)
    client = make_client(server.base_url, session, tmp_path, read_attempts=1)
    with pytest.raises(SignerError) as refusal:
        await client.fetch_challenge(CUSTOMER, timeout=SOON)
    assert refusal.value.detail.startswith(reason.format("GET challenge"))
    assert client.outage.cause == cause
    await deliver_something(client)
    assert client.outage.reason.startswith(reason.format("POST challenge/sign"))
    await client.check()
    assert client.outage.reason.startswith(reason.format("readiness's own GET customer"))


async def test_missing_response_is_named_with_its_time(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
) -> None:
    """The server accepts the connection and the request."""
    server = await start_raw(token_response(), b"", hang_up=False, afterwards=hang)
    client = make_client(server.base_url, session, tmp_path)
    await client.authenticate(timeout=SOON)
    await deliver_something(client, timedelta(seconds=1))
    assert client.outage.cause == "timeout"
    assert re.fullmatch(
        r"The card API did not respond to POST challenge/sign within (1|0\.\d) s\.", client.outage.reason
    )


@pytest.fixture
async def trusting(tmp_path: Path) -> AsyncIterator[tuple[CertificateAuthority, aiohttp.ClientSession]]:
    """A CA, and a session that trusts it."""
    authority = CertificateAuthority(tmp_path / "ca")
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield authority, session


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", "its certificate has expired, or its CA's: check this machine's clock, or renew it"),
        ("other purpose", "its certificate is not trusted (unsuitable certificate purpose)"),
        ("other name", "its certificate is for another name: name the server in card_api.base_url as its"),
        ("unknown issuer", "its certificate is of an unknown issuer: add its CA to SSL_CERT_FILE or this machine's"),
    ],
)
async def test_certificate_is_refused_with_the_reason(
    trusting: tuple[CertificateAuthority, aiohttp.ClientSession], tmp_path: Path, kind: str, reason: str
) -> None:
    """The cause is ``tls``; the reason says what to do."""
    authority, session = trusting
    if kind == "expired":
        files = authority.server(valid_for=timedelta(minutes=-1))
    elif kind == "other purpose":
        files = authority.client()
    elif kind == "other name":
        files = authority.server("card-api.example")
    else:
        files = CertificateAuthority(tmp_path / "other").server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert_file, files.key_file)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        base_url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        cause, text = await reason_of_check(make_client(base_url, session, tmp_path, read_attempts=1))
    assert cause == "tls"
    assert text.startswith(f"The card API cannot be reached for POST auth/token, because {reason}")


async def test_connection_that_is_closed_in_the_tls_handshake_is_named(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
) -> None:
    """As a proxy does that does not know the host."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        writer.transport.abort()

    server = await start_raw(afterwards=close)
    base_url = server.base_url.replace("http:", "https:")
    cause, text = await reason_of_check(make_client(base_url, session, tmp_path, read_attempts=1))
    assert cause == "unreachable"
    assert text.startswith("The card API cannot be reached for POST auth/token, because it closed the connection")
