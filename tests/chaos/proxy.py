"""One replica's way to one server, through which every byte passes: it can be cut, held up, and read.

What makes a fault bite is where it strikes: an answer that is lost **after** the server has done what it was asked for.
So a way has a tap, which hears what is asked and what is answered before it is passed on, and says whether it is. A tap
hears the answers of a connection that was cut, or whose client died, too: what was asked for is done all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from tests.support.servers import free_port

_CHUNK: Final = 1 << 16
_LAST_ANSWERS_WITHIN_SECONDS: Final = 6.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


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


NewTap = Callable[["Way"], Tap]
"""Makes the tap of a new connection."""

Rewrite = Callable[[bytes], bytes]
"""Changes what the server sent, before it is passed on."""


class LosingTap:
    """Understands nothing, and loses answers when its way is told to."""

    def __init__(self, way: Way) -> None:
        self._way = way

    def asked(self, data: bytes) -> None:
        """See ``Tap.asked``."""

    def answered(self, data: bytes) -> bool:
        """See ``Tap.answered``."""
        if not self._way.answers_to_lose:
            return True
        self._way.answers_to_lose -= 1
        return False

    @property
    def waits(self) -> bool:
        """See ``Tap.waits``."""
        return False


class Way:
    """A listener on an address of its own, in front of a server.

    Attributes:
        host: a loopback address.
        port: there.
        answers_to_lose: how many answers are still to be lost.
        errors: what went wrong in here, and must not: a tap that does not understand what it hears.
    """

    def __init__(
        self,
        connect: Connect,
        new_tap: NewTap = LosingTap,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        rewrite: Rewrite = lambda data: data,
    ) -> None:
        self.host = host
        self.port = free_port() if port is None else port
        self.answers_to_lose = 0
        self.errors: list[BaseException] = []
        self._connect = connect
        self._new_tap = new_tap
        self._rewrite = rewrite
        self._passable = asyncio.Event()
        self._passable.set()
        self._cuts: set[asyncio.Event] = set()
        self._passing: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._is_closed = False
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port)

    async def close(self) -> None:
        """Listen no more, and end everything."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0.01)  # whoever was accepted just now comes to be heard, and is turned away
        for task, writer in self._passing.items():
            task.cancel()
            writer.transport.abort()  # a task that has not begun yet does not do it
        if self._passing:
            await asyncio.wait(set(self._passing))

    def cut(self) -> None:
        """Cut every connection there is."""
        for cut in self._cuts:
            cut.set()

    def hold(self) -> None:
        """Let nothing pass, in either direction, and tell nobody: a network that has parted."""
        self._passable.clear()

    def release(self) -> None:
        """Let pass again, and what was held, too."""
        self._passable.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._pass(reader, writer))
        self._passing[task] = writer
        task.add_done_callback(self._passing.pop)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._connect_through(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passable.wait()
        server_reader, server_writer = await self._connect()
        tap = self._new_tap(self)
        cut = asyncio.Event()
        self._cuts.add(cut)
        there = asyncio.create_task(self._pass_questions(reader, server_writer, tap))
        back = asyncio.create_task(self._pass_answers(server_reader, writer, tap))
        cutting = asyncio.create_task(cut.wait())
        try:
            await asyncio.wait({there, back, cutting}, return_when=asyncio.FIRST_COMPLETED)
            there.cancel()
            writer.transport.abort()
            if tap.waits and not back.done():
                await asyncio.wait({back}, timeout=_LAST_ANSWERS_WITHIN_SECONDS)
        finally:
            self._cuts.discard(cut)
            for task in (there, back, cutting):
                task.cancel()
            await asyncio.wait({there, back, cutting})
            ended = (task for task in (there, back) if not task.cancelled())
            self.errors += [error for task in ended if (error := task.exception()) is not None]
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
                if not tap.answered(data):
                    writer.transport.abort()
                if writer.is_closing():
                    if not tap.waits:
                        return
                    continue
                await self._passable.wait()
                if not writer.is_closing():
                    writer.write(self._rewrite(data))
                    with suppress(OSError):
                        await writer.drain()
