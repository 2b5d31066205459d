"""The connections of the HTTP server: what aiohttp leaves open about them.

* Every response comes from this service, also those to requests that aiohttp's parser refuses.
* A client that does not send or does not read is disconnected.
* The number of connections is limited. At the limit the one that has been idle longest is closed for a new one, so
  that strangers, who can only be idle, keep no caller out.
* A replica that stops sends ``Connection: close`` with every response, while it still accepts requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy

from signer.domain.errors import MalformedRequest
from signer.web.request_head import (
    EXPECTS_CONTINUE,
    MAX_FIELD,
    MAX_FIELDS,
    MAX_TARGET,
    error_of_parser,
    fault_of,
)

HEAD_WITHIN: Final = 10.0
"""Seconds in which a request's head must arrive, from its first byte; for the first request, from the connection."""

WRITE_WITHIN: Final = 10.0
"""Seconds in which a client must read a response."""

IDLE_WITHIN: Final = 75.0
"""Seconds after which an idle connection is closed; longer than proxies keep one."""

PROBE_CONNECTIONS: Final = 16
"""How many connections are accepted for probes while requests use all others. Each gets one response."""

REPORT_EVERY: Final = 60.0
"""Seconds between two reports of connections that were closed because there were too many."""

CLOSE_WITHIN: Final = 2.0
"""Seconds that open connections have to end in when the server closes."""

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
CreateRequest = Callable[..., web.BaseRequest]
ReportClosed = Callable[[int], None]
"""Told how many connections were closed since the last call because there were too many."""


class Connection(web.RequestHandler):
    """One connection.

    Attributes:
        server: the server.
        is_surplus: whether requests use all of ``http.max_connections``, so that only a probe gets its response.
        fault: what is wrong with the current request; if it is known by then, the request is not routed.
    """

    __slots__ = ("_connected", "_head_timer", "_write_timer", "fault", "is_surplus", "server")

    def __init__(self, server: HttpServer, **arguments: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(server, **arguments)
        self.server = server
        self.is_surplus = False
        self.fault: MalformedRequest | None = None
        self._connected: Final = self._loop.time()
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or abort it if there are too many."""
        transport = cast("asyncio.Transport", transport)
        surplus = self.server.make_room()
        if surplus > PROBE_CONNECTIONS:
            transport.abort()
            return
        self.is_surplus = surplus > 0
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that pause_writing is called for every unsent byte
        self._head_timer = self._loop.call_later(HEAD_WITHIN, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timers."""
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, fail a body whose transfer coding is broken, and limit the time for the rest of a head."""
        super().data_received(data)
        body = None if self._current_request is None else self._current_request.content
        if body is not None and not body.is_eof() and self._messages:  # an error of the parser: the body is broken
            self.fault = error_of_parser(cast("_ErrInfo", self._messages[-1][0]).exc)
            body.set_exception(web.RequestPayloadError())
            body.feed_eof()  # so that the rest is not waited for
        if not self.is_idle:
            self._head_timer = _cancel(self._head_timer)
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_WITHIN, self.force_close)

    def pause_writing(self) -> None:
        """Limit the time in which the client must read."""
        super().pause_writing()
        if self.transport is not None:
            self._write_timer = self._loop.call_later(WRITE_WITHIN, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the limit."""
        self._write_timer = _cancel(self._write_timer)
        super().resume_writing()

    @property
    def is_idle(self) -> bool:
        """Whether no request has arrived that has no response yet; a part of a head is none."""
        return not self._messages and not (self._request_count and self._waiter is None)

    @property
    def is_open(self) -> bool:
        """Whether it was not closed from this side."""
        return not self._force_close

    @property
    def idle_since(self) -> float:
        """When it became idle, by the event loop's clock."""
        return max(self._connected, self._next_keepalive_close_time - IDLE_WITHIN)

    @property
    def is_last_response(self) -> bool:
        """Whether the connection is closed after the current request."""
        return self.is_surplus or self.server.is_leaving or self.fault is not None

    def _make_error_handler(self, err_info: _ErrInfo) -> Handle:
        self.fault = error_of_parser(err_info.exc)
        return self.server.request_handler


class HttpServer(web.Server):
    """Creates connections and requests.

    Attributes:
        max_connections: ``http.max_connections``.
        is_leaving: whether the replica has been asked to stop.
    """

    def __init__(
        self, handle: Handle, create_request: CreateRequest, max_connections: int, report_closed: ReportClosed
    ) -> None:
        super().__init__(
            handle,
            request_factory=cast("Any", self._create_request),
            access_log=None,  # the canonical line replaces it
            auto_decompress=False,  # no body is ever decompressed, so none can be a decompression bomb
            handler_cancellation=False,  # a request runs on when its caller disconnects
            keepalive_timeout=IDLE_WITHIN,
            lingering_time=2.0,  # seconds; how long an unread body is drained before the connection is closed
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
            max_line_size=MAX_TARGET,
        )
        self.max_connections: Final = max_connections
        self.is_leaving = False
        self._create: Final = create_request
        self._report_closed: Final = report_closed
        self._closed = 0  # since the last report
        self._next_report = 0.0

    def __call__(self) -> Connection:
        """Create a connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def make_room(self) -> int:
        """Return by how many connections a new one exceeds the limit, after closing the one that was idle longest."""
        if len(self.connections) < self.max_connections:
            return 0
        others = [each for each in cast("list[Connection]", self.connections) if each.is_open]
        surplus = max(len(others) + 1 - self.max_connections, 0)
        if surplus:
            self._count_closed()
            idle = [each for each in others if each.is_idle]
            if idle:
                min(idle, key=lambda each: each.idle_since).force_close()
                surplus -= 1
        return surplus

    def _count_closed(self) -> None:
        self._closed += 1
        now = self._loop.time()
        if now >= self._next_report:
            self._report_closed(self._closed)
            self._closed, self._next_report = 0, now + REPORT_EVERY

    def _create_request(
        self, message: RawRequestMessage, payload: StreamReader, connection: Connection, *rest: object
    ) -> web.BaseRequest:
        """Create a request without ``Expect``, which aiohttp would answer before authentication."""
        if message is ERROR:
            message = message._replace(method="unknown", headers=CIMultiDictProxy(CIMultiDict()))
        else:
            connection.fault = fault_of(message)
        if connection.fault is not None:  # the target may be unusable; the response has our version
            message = message._replace(url=ERROR.url, version=HttpVersion11)
        expectations = message.headers.getall(hdrs.EXPECT, ())  # fault_of has refused every one but 100-continue
        if expectations:
            headers = CIMultiDict(message.headers)
            del headers[hdrs.EXPECT]
            message = message._replace(headers=CIMultiDictProxy(headers))
        request = self._create(message, payload, connection, *rest)
        request[EXPECTS_CONTINUE] = any(expectations) and message.version == HttpVersion11
        return request


class HttpRunner(web.AppRunner):
    """Runs the application over ``Connection``."""

    def __init__(
        self,
        app: web.Application,
        around: Callable[[Handle], Handle],
        max_connections: int,
        report_closed: ReportClosed = lambda _count: None,
    ) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=CLOSE_WITHIN)
        self._around: Final = around
        self._max_connections: Final = max_connections
        self._report_closed: Final = report_closed

    def leave(self) -> None:
        """Let ``/readyz`` fail, and close each connection after its next response."""
        cast("HttpServer", self.server).is_leaving = True

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        for site in self.sites:
            await site.stop()

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        handle = self._around(server.request_handler)
        return HttpServer(handle, server.request_factory, self._max_connections, self._report_closed)


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection of a request."""
    return cast("Connection", request.protocol)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, and return the value of a timer that does not run."""
    if timer is not None:
        timer.cancel()
    return None
