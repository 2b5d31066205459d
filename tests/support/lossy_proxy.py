"""A proxy in front of a Unix socket that loses answers: what was asked has been done, and the asker is never told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_CHUNK: Final = 1 << 16


class LossyProxy:
    """Passes everything on, but for the answers that it was told to lose.

    Attributes:
        url: ``unix://…`` of the proxy.
        lost: how many answers were lost.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.lost = 0
        self._server = server
        self._to_lose = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._all_closed = asyncio.Event()

    def lose_next(self, count: int = 1) -> None:
        """Cut the connection instead of passing the next answer on, so many times."""
        self._to_lose = count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one client through."""
        self._open.add(writer)
        self._all_closed.clear()
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._server)
        asking = asyncio.create_task(_pump(reader, upstream_writer))
        try:
            while answer := await upstream_reader.read(_CHUNK):
                if self._to_lose:
                    self._to_lose -= 1
                    self.lost += 1
                    break
                writer.write(answer)
                await writer.drain()
        finally:
            for one in (writer, upstream_writer):
                one.close()
                with suppress(OSError):
                    await one.wait_closed()
            await asking
            self._open.discard(writer)
            if not self._open:
                self._all_closed.set()

    async def close(self) -> None:
        """Cut every connection."""
        for writer in self._open:
            writer.close()
        if self._open:
            await self._all_closed.wait()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def lossy_proxy(server_url: str) -> AsyncIterator[LossyProxy]:
    """Run a proxy in front of the server at ``unix://…``."""
    with TemporaryDirectory(prefix="signer-") as folder:
        proxy = LossyProxy(Path(folder) / "proxy.sock", Path(server_url.removeprefix("unix://")))
        listener = await asyncio.start_unix_server(proxy.serve, proxy.path)
        try:
            yield proxy
        finally:
            listener.close()
            await proxy.close()
