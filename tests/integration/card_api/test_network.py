"""No connection, and responses that no HTTP library would send."""

from __future__ import annotations

import asyncio
import gzip
import socket
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.http_transport import open_session
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import BadUpstream, ErrorCode, SignerError, Unavailable, UpstreamTimeout
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import (
    API_KEY,
    CUSTOMER,
    SOON,
    deliver_something,
    make_client,
)
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import http, token_response

CHALLENGE = http(200, b'{"challenge": "YQ=="}')
V = DeliveryVerdict


class TestNoConnection:
    """A delivery without a connection was not processed."""

    @pytest.fixture
    async def client(self, start_raw: StartRaw, session: aiohttp.ClientSession, tmp_path: Path) -> CardApiClient:
        """A client with a token, whose server has stopped."""
        server = await start_raw(token_response())
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        await server.stop()
        return client

    async def test_refused_connection(self, client: CardApiClient) -> None:
        """A read raises it."""
        assert await deliver_something(client) == DeliveryResult(V.NOT_PROCESSED, None)
        with pytest.raises(Unavailable, match="cannot be reached") as refusal:
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE

    async def test_refused_connection_without_token(self, session: aiohttp.ClientSession, tmp_path: Path) -> None:
        """The token request fails, and the delivery is not sent."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            client = make_client(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", session, tmp_path)
            assert await deliver_something(client) == DeliveryResult(V.NOT_PROCESSED, None)

    async def test_unknown_host(self, session: aiohttp.ClientSession, tmp_path: Path) -> None:
        """RFC 6761 §6.4: ``.invalid`` has no address."""
        client = make_client("https://card-api.invalid/v1", session, tmp_path, read_attempts=1)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.check()

    async def test_server_without_tls(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """It receives a TLS greeting and no request."""
        received = bytearray()

        async def respond_in_plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.extend(await reader.read(10_000))
            writer.write(http(400))

        server = await start_raw(afterwards=respond_in_plain)
        client = make_client(server.base_url.replace("http:", "https:"), session, tmp_path, read_attempts=1)
        with pytest.raises(Unavailable, match=r"it does not speak TLS as we do \(WRONG_VERSION_NUMBER\); check"):
            await client.check()
        assert received[:1] == b"\x16"  # RFC 8446 §5.1: a handshake record
        assert API_KEY.encode() not in received

    async def test_no_free_connection(self, start: StartCalling) -> None:
        """A delivery that waits too long for a connection is not sent."""
        calling = await start(max_connections=1, connect_timeout=timedelta(milliseconds=500))
        customer_id, submission = calling.customer()
        await calling.client.check()
        calling.fault(FaultKind.LATENCY, "challenge", seconds=30)
        slow = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
        await asyncio.sleep(0)
        delivery = await calling.deliver(customer_id, submission)
        slow.cancel()
        await asyncio.wait({slow})
        assert delivery == DeliveryResult(V.NOT_PROCESSED, None)
        assert calling.calls("sign") == 0

    async def test_closed_session(self, start_raw: StartRaw, tmp_path: Path) -> None:
        """At the end of the process nothing is sent, and nothing is raised."""
        server = await start_raw(token_response())
        async with open_session() as session:
            client = make_client(server.base_url, session, tmp_path)
            await client.check()
        assert await deliver_something(client) == DeliveryResult(V.NOT_PROCESSED, None)


NOT_HTTP = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "malformed status": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "thousand headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
}
CUT = {
    "empty": b"",
    "half a status line": b"HTTP/1.1 2",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"challen',
    "half of the chunks": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"challe\r\n',
}
TOO_LONG = {
    "announced": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{",
    "not announced": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 200_000,
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%b\r\n" % (b" " * 4096) * 50,
}


def cases(table: dict[str, bytes]) -> pytest.MarkDecorator:
    """Run a test for each of these responses."""
    return pytest.mark.parametrize("reply", table.values(), ids=table)


class TestUnreadableResponses:
    """A delivery is unknown, a read raises an error."""

    @cases(NOT_HTTP | CUT | TOO_LONG)
    async def test_delivery_is_unknown(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes
    ) -> None:
        """It may have been processed, and is sent once."""
        server = await start_raw(token_response(), reply)
        client = make_client(server.base_url, session, tmp_path)
        assert (await deliver_something(client)).verdict is V.UNKNOWN
        assert len(server.received) == 2

    @cases(NOT_HTTP | TOO_LONG)
    async def test_read_of_malformed_response_is_not_retried(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes
    ) -> None:
        """A response that is not HTTP, or too long, is an invalid response."""
        server = await start_raw(token_response(), reply)
        client = make_client(server.base_url, session, tmp_path)
        with pytest.raises(BadUpstream) as refusal:
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
        assert len(server.received) == 2

    @cases(CUT)
    async def test_read_of_incomplete_response_is_retried(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes
    ) -> None:
        """The next response is complete."""
        server = await start_raw(token_response(), reply, CHALLENGE)
        client = make_client(server.base_url, session, tmp_path)
        assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="

    async def test_malformed_chunk(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """A damaged body is never used."""
        server = await start_raw(
            token_response(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nYXBpLnNh\r\nmore\r\n0\r\n\r\n"
        )
        client = make_client(server.base_url, session, tmp_path)
        assert (await deliver_something(client)).verdict is V.UNKNOWN
        with pytest.raises(SignerError) as refusal:
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert refusal.value.code in {ErrorCode.CARD_API_INVALID_ANSWER, ErrorCode.CARD_API_UNAVAILABLE}
        assert "YXBpLnNh" not in str(refusal.value)

    async def test_compressed_response_is_not_decompressed(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """We ask for uncompressed responses; a compressed one could have any size."""
        compressed = gzip.compress(b'{"challenge": "YQ=="}')
        server = await start_raw(token_response(), http(200, compressed, "Content-Encoding: gzip"))
        client = make_client(server.base_url, session, tmp_path)
        with pytest.raises(BadUpstream):
            await client.fetch_challenge(CUSTOMER, timeout=SOON)

    async def test_timeout_covers_body(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """A body that arrives byte by byte does not prolong the call."""

        async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

        server = await start_raw(token_response(), http(200)[:-5] + b"1000\r\n\r\n", afterwards=drip)
        client = make_client(server.base_url, session, tmp_path)
        await client.authenticate(timeout=SOON)
        assert await deliver_something(client, timedelta(seconds=1)) == DeliveryResult(V.UNKNOWN, 200)
        with pytest.raises(UpstreamTimeout):
            await client.fetch_challenge(CUSTOMER, timeout=timedelta(milliseconds=300))

    async def test_connection_of_unread_response_is_not_reused(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """The rest of a long response is not read as the next one."""
        server = await start_raw(token_response(), TOO_LONG["announced"] + CHALLENGE * 10, CHALLENGE, hang_up=False)
        client = make_client(server.base_url, session, tmp_path)
        with pytest.raises(BadUpstream):
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="
