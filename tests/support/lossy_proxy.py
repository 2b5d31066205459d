"""A proxy in front of a Unix socket that loses replies of commands that the server has carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_CHUNK: Final = 1 << 16


class LossyProxy:
    """Forwards everything except the replies that it is told to lose.

    Attributes:
        url: ``unix://…`` of the proxy.
        lost: how many replies were lost.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.lost = 0
        self._server = server
        self._to_lose = 0
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def lose_next(self, count: int = 1) -> None:
        """Close the connection instead of forwarding the next reply, this many times."""
        self._to_lose = count

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one client to the server."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def close(self) -> None:
        """Close every connection, and wait until all are closed."""
        for writer in self._connections.values():
            writer.close()
        if self._connections:
            await asyncio.wait(set(self._connections))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        except OSError:
            await _close(writer)
            return
        requests = asyncio.create_task(_forward(reader, server_writer))
        try:
            while reply := await server_reader.read(_CHUNK):
                if self._to_lose:
                    self._to_lose -= 1
                    self.lost += 1
                    break
                writer.write(reply)
                await writer.drain()
        except OSError:
            pass
        finally:
            await _close(writer)
            await _close(server_writer)
            await requests


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def lossy_proxy(server_url: str) -> AsyncIterator[LossyProxy]:
    """Run a proxy in front of the server at ``unix://…``."""
    with TemporaryDirectory(prefix="signer-") as folder:
        proxy = LossyProxy(Path(folder) / "proxy.sock", Path(server_url.removeprefix("unix://")))
        listener = await asyncio.start_unix_server(proxy.accept, proxy.path)
        try:
            yield proxy
        finally:
            listener.close()
            await proxy.close()
