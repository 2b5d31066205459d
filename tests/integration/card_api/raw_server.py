"""A server that records requests and sends prepared bytes: for responses that no HTTP library sends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request, as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


def http(status: int, body: bytes = b"", *fields: str) -> bytes:
    """Return a well-formed response."""
    head = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def token_response(token: str = "t.o.k", lifetime: float = 3600) -> bytes:
    """Return the response to ``POST /auth/token``."""
    payload = {"token": token, "expiresAt": int(time.time() + lifetime), "tokenType": "Bearer"}
    return http(200, json.dumps(payload).encode())


class RawServer:
    """Sends the n-th reply to the n-th request, and the last reply to all further ones.

    Attributes:
        received: the requests so far.
        base_url: for a client.
    """

    def __init__(self, replies: list[bytes], *, hang_up: bool = True, afterwards: Conversation | None = None) -> None:
        """Prepare the replies.

        Args:
            replies: each a complete response, or a malformed one.
            hang_up: whether the connection is closed after each.
            afterwards: is called with the connection after the last.
        """
        self._replies = replies
        self._hang_up = hang_up
        self._afterwards = afterwards
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.received: list[Received] = []
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0)
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._respond(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if self._replies:
                self.received.append(await _receive(reader))
                writer.write(self._replies[min(len(self.received), len(self._replies)) - 1])
                await writer.drain()
            if self._afterwards is not None and len(self.received) >= len(self._replies):
                await self._afterwards(reader, writer)
            if self._hang_up:
                return


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    return Received(head[0], headers, await reader.readexactly(int(headers.get("content-length", "0"))))
