"""A card API that costs next to nothing: 200 with a token, a customer, a status or a challenge, 204 for a delivery.

Like every server with a clock it sends ``Date`` (RFC 9110 §6.6.1).

Arguments: a port; a JSON file with ``owner``, ``domain``, ``chain`` and ``statement``, which its challenges are made
of; for TLS also the files of a certificate and its key.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import ssl
import sys
import time
import uuid
from email.utils import formatdate
from itertools import count
from pathlib import Path
from typing import Final, cast

import uvloop

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CUSTOMER: Final = re.compile(rb"GET /v1/customers/([0-9a-f-]+) ")
_RUN: Final = secrets.token_hex(8)
_NUMBERS: Final = count()
_MESSAGE: Final = (
    "{domain} wants you to sign in with your Ethereum account:\n{owner}\n\n{statement}\n\nURI: https://{domain}\n"
    "Version: 1\nChain ID: {chain}\nNonce: {nonce}\nIssued At: {issued_at}"
)


class Connection(asyncio.Protocol):
    """One connection; requests may be pipelined, and arrive in pieces."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Respond to each complete request."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end]
            length = _LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self._read) < total:
                return
            self._read = self._read[total:]
            self._transport.write(_response(head.partition(b"\r\n")[0]))


def _response(request: bytes) -> bytes:
    if b"/challenge/sign " in request:
        return _head("204 No Content") + b"\r\n"
    if b"/challenge " in request:
        return _ok({"challenge": _challenge()})
    if request.startswith(b"POST ") and b"/customers " in request:
        return _ok({"id": str(uuid.uuid4()), "status": "pending", "challenge": _challenge()})
    if match := _CUSTOMER.match(request):
        return _ok({"id": match[1].decode(), "status": "pending"})
    return _ok({"token": "x" * 300, "expiresAt": int(time.time()) + 3600, "tokenType": "Bearer"})


def _ok(fields: dict[str, object]) -> bytes:
    body = json.dumps(fields).encode()
    return _head("200 OK") + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _head(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nDate: {formatdate(usegmt=True)}\r\n".encode()


def _challenge() -> str:
    issued_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    message = _MESSAGE.format(**_SETTINGS, nonce=f"{_RUN}{next(_NUMBERS):08d}", issued_at=issued_at)
    return base64.b64encode(message.encode()).decode()


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    context = None
    if certificate := sys.argv[3:5]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    await loop.create_server(Connection, "127.0.0.1", int(sys.argv[1]), ssl=context)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _SETTINGS: Final = json.loads(Path(sys.argv[2]).read_text("utf-8"))
    uvloop.run(main())
