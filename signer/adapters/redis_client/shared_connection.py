"""One connection to a server that all calls share: no call waits for a free connection.

* redis-py connects and logs in, over TCP, TLS or a Unix socket. From then on the transport belongs to this object.
* The calls of one iteration of the event loop leave in one write. Responses come in the order of the calls.
* One timer watches all calls. If the oldest one has no response in time, the server hangs, and the connection is
  dropped: the calls behind it may have been carried out, too, and ``RedisCalls`` repeats them.
* The response to a call that was cancelled is read and discarded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import hiredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from signer.adapters.redis_client.connections import RedisConnection

Part = str | bytes | int
"""One word of a command."""

Command = tuple[Part, ...]

_INCOMPLETE: Final = object()


class _Call:
    """Commands that were sent together, and the responses so far."""

    __slots__ = ("deadline", "expected", "responses", "result")

    def __init__(self, result: asyncio.Future[list[Any]], expected: int, deadline: float) -> None:
        self.result = result
        self.responses: list[Any] = []
        self.expected = expected
        self.deadline = deadline


class SharedConnection(asyncio.Protocol):
    """An open connection. ``open`` creates it.

    Attributes:
        is_open: whether calls can be sent.
        peer: a connection that is dropped together with this one.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        """Take over an open transport; ``writer`` is kept, because it would close the transport when it is deleted."""
        self._writer = writer
        self._transport = writer.transport
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_INCOMPLETE
        )
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handle does not tell it if the time has passed
        self.is_open = True
        self.peer: SharedConnection | None = None
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, connection: RedisConnection) -> SharedConnection:
        """Connect and log in; raise ``RedisError``."""
        try:
            await connection.connect()
            return cls(connection.detach())
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def call(self, commands: Sequence[Command], deadline: float) -> asyncio.Future[list[Any]]:
        """Send commands. The result is the list of their responses; an error response is in its place.

        Args:
            commands: at least one.
            deadline: by the event loop's clock; after it the result is a ``TimeoutError``. If it has passed, nothing is
                sent.
        """
        result: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.is_open:
            result.set_exception(RedisConnectionError("Connection lost"))
            return result
        if deadline <= self._loop.time():
            result.set_exception(TimeoutError())
            return result
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.extend(map(hiredis.pack_command, commands))  # type: ignore[arg-type] # its stub allows one word only
        self._calls.append(_Call(result, len(commands), deadline))
        if self._timer is None or deadline < self._timer_at:
            self._watch_until(deadline)
        return result

    def drop(self, reason: str) -> None:
        """Close the connection and fail its calls."""
        if not self.is_open:
            return
        self.is_open = False
        self._transport.abort()  # a TLS shutdown would wait half a minute for a server that hangs
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls:
            if not call.result.done():
                call.result.set_exception(RedisConnectionError(reason))
        self._calls.clear()
        if self.peer is not None:
            self.peer.drop(reason)

    def data_received(self, data: bytes) -> None:
        """Pass each response to its call."""
        try:
            self._reader.feed(data)
            while (response := self._reader.gets()) is not _INCOMPLETE:
                call = self._calls[0]
                call.responses.append(response)
                if len(call.responses) == call.expected:
                    self._calls.popleft()
                    if not call.result.done():
                        call.result.set_result(call.responses)
        except (InvalidResponse, IndexError):
            self.drop("the server sent something that is not a response")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        """Fail the calls."""
        self.drop("Connection lost")

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.is_open:
            self._transport.write(b"".join(unsent))

    def _watch_until(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._fail_late_calls)

    def _fail_late_calls(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [call for call in self._calls if call.deadline <= now]
        for call in late:
            if not call.result.done():
                call.result.set_exception(TimeoutError())
        if late and late[0] is self._calls[0]:
            self.drop("an earlier call on this connection had no response in time")
        elif self._calls:
            self._watch_until(min(call.deadline for call in self._calls if call not in late))
