"""A proxy between one replica and one server; its connections can be cut, blocked and observed.

The most severe fault is a response that is lost **after** the server has executed the request. So each connection has a
tap, which sees requests and responses before they are forwarded and can drop a response. A tap also sees the responses
of a connection that was cut or whose client died, because the server executes these requests, too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from tests.support.servers import free_port

_CHUNK: Final = 1 << 16
_LAST_ANSWERS_WITHIN_SECONDS: Final = 6.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


class Tap(Protocol):
    """Observes one connection."""

    def on_request(self, data: bytes) -> None:
        """Process data that the client sent."""
        ...

    def on_response(self, data: bytes) -> bool:
        """Process data that the server sent; return whether to forward it. If not, the connection is cut."""
        ...

    @property
    def is_waiting(self) -> bool:
        """Whether a request has no response yet."""
        ...


TapFactory = Callable[["TappedProxy"], Tap]
"""Creates the tap of a new connection."""

Rewrite = Callable[[bytes], bytes]
"""Changes data of the server before it is forwarded."""


class ResponseDroppingTap:
    """Parses nothing; drops as many responses as its proxy says."""

    def __init__(self, proxy: TappedProxy) -> None:
        self._way = proxy

    def on_request(self, data: bytes) -> None:
        """See ``Tap.on_request``."""

    def on_response(self, data: bytes) -> bool:
        """See ``Tap.on_response``."""
        if not self._way.responses_to_lose:
            return True
        self._way.responses_to_lose -= 1
        return False

    @property
    def is_waiting(self) -> bool:
        """See ``Tap.is_waiting``."""
        return False


class TappedProxy:
    """Listens on an address and connects each client to the server.

    Attributes:
        host: a loopback address.
        port: TCP port on ``host``.
        responses_to_lose: number of responses that are still to be dropped.
        errors: errors inside the proxy, such as a tap that cannot parse the traffic; there must be none.
    """

    def __init__(
        self,
        connect: Connect,
        tap_factory: TapFactory = ResponseDroppingTap,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        rewrite: Rewrite = lambda data: data,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = free_port() if port is None else port
        self.responses_to_lose = 0
        self.errors: list[BaseException] = []
        self._connect = connect
        self._tap_factory = tap_factory
        self._rewrite = rewrite
        self._tls = tls
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._cuts: set[asyncio.Event] = set()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._is_closed = False
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=self._tls)

    async def close(self) -> None:
        """Stop to listen, and close all connections."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0.01)  # _accept runs for a connection that was just accepted
        for task, writer in self._connections.items():
            task.cancel()
            writer.transport.abort()  # a task that has not started yet would not do it
        if self._connections:
            await asyncio.wait(set(self._connections))

    def cut(self) -> None:
        """Cut all connections."""
        for cut in self._cuts:
            cut.set()

    def hold(self) -> None:
        """Forward nothing in either direction, and keep the connections open, as in a network partition."""
        self._may_pass.clear()

    def release(self) -> None:
        """Forward again, also what was blocked."""
        self._may_pass.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._handle(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._may_pass.wait()
        server_reader, server_writer = await self._connect()
        tap = self._tap_factory(self)
        cut = asyncio.Event()
        self._cuts.add(cut)
        upstream = asyncio.create_task(self._forward_requests(reader, server_writer, tap))
        downstream = asyncio.create_task(self._forward_responses(server_reader, writer, tap))
        cutting = asyncio.create_task(cut.wait())
        try:
            await asyncio.wait({upstream, downstream, cutting}, return_when=asyncio.FIRST_COMPLETED)
            upstream.cancel()
            writer.transport.abort()
            if tap.is_waiting and not downstream.done():
                await asyncio.wait({downstream}, timeout=_LAST_ANSWERS_WITHIN_SECONDS)
        finally:
            self._cuts.discard(cut)
            server_writer.transport.abort()  # before the wait, which `close` may cancel
            for task in (upstream, downstream, cutting):
                task.cancel()
            await asyncio.wait({upstream, downstream, cutting})
            ended = (task for task in (upstream, downstream) if not task.cancelled())
            self.errors += [error for task in ended if (error := task.exception()) is not None]

    async def _forward_requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, tap: Tap) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._may_pass.wait()
                tap.on_request(data)
                server.write(data)
                await server.drain()

    async def _forward_responses(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, tap: Tap) -> None:
        with suppress(OSError):
            while data := await server.read(_CHUNK):
                if not tap.on_response(data):
                    writer.transport.abort()
                if writer.is_closing():
                    if not tap.is_waiting:
                        return
                    continue
                await self._may_pass.wait()
                if not writer.is_closing():
                    writer.write(self._rewrite(data))
                    with suppress(OSError):
                        await writer.drain()
