"""No connection, and answers that no HTTP library would send."""

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
from signer.application.ports import Delivery, DeliveryVerdict
from signer.domain.errors import BadUpstream, ErrorCode, SignerError, Unavailable, UpstreamTimeout
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import (
    API_KEY,
    CUSTOMER,
    SOON,
    Calling,
    deliver_something,
    make_client,
)
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import http, token_answer

CHALLENGE = http(200, b'{"challenge": "YQ=="}')
V = DeliveryVerdict


class TestNoConnection:
    """Whatever ends before there is a connection was not processed."""

    @pytest.fixture
    async def client(self, start_raw: StartRaw, session: aiohttp.ClientSession, tmp_path: Path) -> CardApiClient:
        """A client that has its token; the server goes away behind it."""
        server = await start_raw(token_answer())
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        await server.go_away()
        return client

    async def test_refused(self, client: CardApiClient) -> None:
        """Nobody listens: a delivery was not processed, and reading says so."""
        assert await deliver_something(client) == Delivery(V.NOT_PROCESSED, None)
        with pytest.raises(Unavailable, match="cannot be reached") as refusal:
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE

    async def test_refused_before_there_is_a_token(self, session: aiohttp.ClientSession, tmp_path: Path) -> None:
        """So it is when not even a token can be had."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            client = make_client(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", session, tmp_path)
            assert await deliver_something(client) == Delivery(V.NOT_PROCESSED, None)

    async def test_no_such_host(self, session: aiohttp.ClientSession, tmp_path: Path) -> None:
        """RFC 6761 §6.4: ``.invalid`` has no address."""
        client = make_client("https://card-api.invalid/v1", session, tmp_path, read_attempts=1)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.check()

    async def test_no_tls(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """A server that does not speak TLS gets a greeting, and nothing else."""
        heard = bytearray()

        async def answer_in_plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend(await reader.read(10_000))
            writer.write(http(400))

        server = await start_raw(afterwards=answer_in_plain)
        client = make_client(server.base_url.replace("http:", "https:"), session, tmp_path, read_attempts=1)
        with pytest.raises(Unavailable, match=r"cannot be reached \(ClientConnectorSSLError\)"):
            await client.check()
        assert heard[:1] == b"\x16"  # RFC 8446 §5.1: a handshake record
        assert API_KEY.encode() not in heard

    async def test_no_place_in_the_pool(self, start: StartCalling, tmp_path: Path) -> None:
        """Who waits too long for a connection has sent nothing."""
        calling = await start()
        customer_id, submission = calling.customer()
        async with open_session(max_connections=1, keep_alive=SOON) as narrow:
            client = make_client(
                calling.simulator.base_url, narrow, tmp_path, connect_timeout=timedelta(milliseconds=500)
            )
            await client.check()
            calling.fault(FaultKind.LATENCY, "challenge", seconds=30)
            slow = asyncio.create_task(client.fetch_challenge(customer_id, timeout=SOON))
            await asyncio.sleep(0)
            delivery = await Calling(calling.simulator, client, tmp_path).deliver(customer_id, submission)
            slow.cancel()
            await asyncio.wait({slow})
        assert delivery == Delivery(V.NOT_PROCESSED, None)
        assert calling.calls("sign") == 0

    async def test_a_session_that_is_closed(self, start_raw: StartRaw, tmp_path: Path) -> None:
        """At the end of the process nothing is sent any more, and nothing is raised."""
        server = await start_raw(token_answer())
        async with open_session(max_connections=1, keep_alive=SOON) as session:
            client = make_client(server.base_url, session, tmp_path)
            await client.check()
        assert await deliver_something(client) == Delivery(V.NOT_PROCESSED, None)


NOT_HTTP = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a header that never ends": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "a thousand headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
}
CUT = {
    "nothing at all": b"",
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
    """Run a test for each of these answers."""
    return pytest.mark.parametrize("reply", table.values(), ids=table)


class TestAnswersThatAreNone:
    """They leave a delivery open, and are errors with a name for a reader."""

    @cases(NOT_HTTP | CUT | TOO_LONG)
    async def test_a_delivery_stays_open(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes
    ) -> None:
        """Whatever comes that cannot be read: it may have been processed, and is sent once."""
        server = await start_raw(token_answer(), reply)
        client = make_client(server.base_url, session, tmp_path)
        assert (await deliver_something(client)).verdict is V.UNKNOWN
        assert len(server.received) == 2

    @cases(NOT_HTTP | TOO_LONG)
    async def test_reading_refuses_it(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes
    ) -> None:
        """An answer that is no HTTP, or too long, is the API's mistake, and not asked for again."""
        server = await start_raw(token_answer(), reply)
        client = make_client(server.base_url, session, tmp_path)
        with pytest.raises(BadUpstream) as refusal:
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
        assert len(server.received) == 2

    @cases(CUT)
    async def test_reading_repeats_what_was_cut(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, reply: bytes
    ) -> None:
        """The next answer is whole."""
        server = await start_raw(token_answer(), reply, CHALLENGE)
        client = make_client(server.base_url, session, tmp_path)
        assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="

    async def test_a_chunk_that_is_none(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """A damaged body is never taken for an answer."""
        server = await start_raw(
            token_answer(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nYXBpLnNh\r\nmore\r\n0\r\n\r\n"
        )
        client = make_client(server.base_url, session, tmp_path)
        assert (await deliver_something(client)).verdict is V.UNKNOWN
        with pytest.raises(SignerError) as refusal:
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert refusal.value.code in {ErrorCode.CARD_API_INVALID_ANSWER, ErrorCode.CARD_API_UNAVAILABLE}
        assert "YXBpLnNh" not in str(refusal.value)

    async def test_a_packed_answer_is_not_unpacked(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """We ask for plain answers; a packed one could be of any size."""
        packed = gzip.compress(b'{"challenge": "YQ=="}')
        server = await start_raw(token_answer(), http(200, packed, "Content-Encoding: gzip"))
        client = make_client(server.base_url, session, tmp_path)
        with pytest.raises(BadUpstream):
            await client.fetch_challenge(CUSTOMER, timeout=SOON)

    async def test_an_answer_that_drips(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """The timeout covers the body too."""

        async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

        server = await start_raw(token_answer(), http(200)[:-5] + b"1000\r\n\r\n", afterwards=drip)
        client = make_client(server.base_url, session, tmp_path)
        assert await deliver_something(client, timedelta(seconds=1)) == Delivery(V.UNKNOWN, 200)
        with pytest.raises(UpstreamTimeout):
            await client.fetch_challenge(CUSTOMER, timeout=timedelta(milliseconds=300))

    async def test_the_connection_of_a_bad_answer_is_not_used_again(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """What is left of a long answer is not read as the next one's beginning."""
        server = await start_raw(token_answer(), TOO_LONG["announced"] + CHALLENGE * 10, CHALLENGE, hang_up=False)
        client = make_client(server.base_url, session, tmp_path)
        with pytest.raises(BadUpstream):
            await client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="
