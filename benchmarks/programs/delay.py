"""A TCP proxy that delivers everything later: a network between two sites, for a replica that lags.

Arguments: the port to listen on, the port to connect to, the delay in seconds of each direction.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

import uvloop

_CHUNK = 1 << 16


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(_CHUNK):
        loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


async def _connect(port: int, delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    there, back = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_forward(reader, back, delay), _forward(there, writer, delay))


async def main() -> None:
    """Serve until killed."""
    listen, connect, delay = sys.argv[1:]
    await asyncio.start_server(partial(_connect, int(connect), float(delay)), "127.0.0.1", int(listen))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
