"""A card API that costs next to nothing: 200 with a token, a customer's status or a challenge, 204 for a delivery."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Final, cast

import uvloop

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_ACCEPTED: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection; requests may be pipelined, and arrive in pieces."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end]
            length = _LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self._read) < total:
                return
            self._read = self._read[total:]
            self._transport.write(_ACCEPTED if b"/challenge/sign " in head else _token())


def _token() -> bytes:
    body = json.dumps({"token": "x" * 300, "expiresAt": int(time.time()) + 3600, "tokenType": "Bearer"}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Connection, "127.0.0.1", int(sys.argv[1]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
