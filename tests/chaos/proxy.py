"""One replica's way to one server, through which every byte passes: it can be cut, held up, and read.

What makes a fault bite is where it strikes: an answer that is lost **after** the server has done what it was asked for.
So a way has a tap, which sees what is asked and what is answered before it is passed on, and says whether it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from tests.servers import free_port

_CHUNK: Final = 1 << 16
_LAST_ANSWERS_WITHIN_SECONDS: Final = 5.0


class Tap(Protocol):
    """Listens in on one connection."""

    def asked(self, data: bytes) -> None:
        """Hear what the client sent."""
        ...

    def answered(self, data: bytes) -> bool:
        """Hear what the server sent; tells whether it may pass. What may not is lost, and the connection is cut."""
        ...

    @property
    def waits(self) -> bool:
        """Whether something was asked and not answered yet."""
        ...


class SilentTap:
    """Hears nothing, but loses answers when it is told to."""

    def __init__(self, way: Way) -> None:
        self._way = way

    def asked(self, data: bytes) -> None:
        """See ``Tap.asked``."""

    def answered(self, data: bytes) -> bool:  # noqa: ARG002 - see ``Tap.answered``
        """See ``Tap.answered``."""
        if self._way.answers_to_lose:
            self._way.answers_to_lose -= 1
            return False
        return True

    @property
    def waits(self) -> bool:
        """See ``Tap.waits``."""
        return False


class Way:
    """A listener on a port of its own, in front of a server.

    Attributes:
        port: on 127.0.0.1.
        answers_to_lose: how many answers a ``SilentTap`` is still to lose.
    """

    def __init__(
        self,
        connect: Callable[[], asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]],
        new_tap: Callable[[Way], Tap] = SilentTap,
    ) -> None:
        self.port = free_port()
        self.answers_to_lose = 0
        self._connect = connect
        self._new_tap = new_tap
        self._passable = asyncio.Event()
        self._passable.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Listen no more, and cut everything."""
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)

    def cut(self) -> None:
        """Cut every connection there is."""
        for connection in self._connections:
            connection.cancel()

    def hold(self) -> None:
        """Let nothing pass, in either direction, and tell nobody: a network that has parted."""
        self._passable.clear()

    def release(self) -> None:
        """Let pass again, what was held too."""
        self._passable.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._pass(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tap = self._new_tap(self)
        await self._passable.wait()
        server_reader, server_writer = await self._connect()
        there = asyncio.create_task(self._pass_questions(reader, server_writer, tap))
        back = asyncio.create_task(self._pass_answers(server_reader, writer, tap))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            if there.done() and tap.waits:  # the client died: what it asked for is done all the same, and is heard
                await asyncio.wait({back}, timeout=_LAST_ANSWERS_WITHIN_SECONDS)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.wait({there, back})
            server_writer.transport.abort()

    async def _pass_questions(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, tap: Tap) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._passable.wait()
                tap.asked(data)
                server.write(data)
                await server.drain()

    async def _pass_answers(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, tap: Tap) -> None:
        with suppress(OSError):
            while data := await server.read(_CHUNK):
                await self._passable.wait()
                if not tap.answered(data):
                    return
                if not writer.is_closing():
                    writer.write(data)
                    with suppress(OSError):
                        await writer.drain()
                elif not tap.waits:
                    return
