"""Sends requests at a given rate, whatever the responses do, and prints the latencies as JSON.

The requests of many independent callers: the gaps between them are random (a Poisson process) and the same in each run
with one seed. A latency begins at the moment when the request was due, not when it was sent, so a program that stalls
delays every request that was due meanwhile (no coordinated omission). ``late`` is how much later than due this program
sent its requests: its own share of the latencies. All requests are built before the first is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import random
import re
import secrets
import selectors
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

_CONNECTIONS: Final = 64
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One connection with at most one request at a time."""

    def __init__(self, generator: Generator) -> None:
        """Start idle."""
        self._generator = generator
        self._read = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, due: float, request: bytes) -> None:
        """Send a request."""
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Note the latency when the response is complete."""
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length and len(body) >= int(length[1]):
            self._read = b""
            self._generator.complete(self, is_success=head.startswith(b"HTTP/1.1 200"))


class Generator:
    """Sends each request when it is due, over an idle connection or as soon as there is one."""

    def __init__(self, patience: float) -> None:
        """Start with no connection. ``patience``: seconds to wait for the last responses."""
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._all_done = asyncio.Event()
        self._left = 0
        self.failed = 0
        self.latencies: list[float] = []
        self.late: list[float] = []

    async def run(self, port: int, requests: Sequence[tuple[float, bytes]]) -> None:
        """Send all requests, each so many seconds after the start, and wait for the responses."""
        for _ in range(_CONNECTIONS):
            _, connection = await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
            self._idle.append(connection)
        self._left = len(requests)
        started = self._loop.time()
        for after, request in requests:
            due = started + after
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            self._waiting.append((due, request))
            self.late.append(self._loop.time() - due)
            self._send()
        await asyncio.wait_for(self._all_done.wait(), self._patience)

    def complete(self, connection: Connection, *, is_success: bool) -> None:
        """Note a response."""
        self.latencies.append(self._loop.time() - connection.due)
        self.failed += not is_success
        self._idle.append(connection)
        self._left -= 1
        if not self._left:
            self._all_done.set()
        self._send()

    def _send(self) -> None:
        while self._waiting and self._idle:
            self._idle.popleft().send(*self._waiting.popleft())


def schedule(rate: float, seconds: float, seed: int) -> list[float]:
    """Return when the requests are due, in seconds after the start."""
    chance, at, due = random.Random(seed), 0.0, []
    while (at := at + chance.expovariate(rate)) < seconds:
        due.append(at)
    return due


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def requests_for(options: argparse.Namespace, count: int) -> list[bytes]:
    """Return requests to sign, each with a challenge of its own for a customer of its own."""
    owner = Path(options.owners).read_text("utf-8").split()[0]
    run, issued_at = secrets.token_hex(6), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    requests = []
    for number in range(count):
        message = (
            f"{options.domain} wants you to sign in with your Ethereum account:\n{owner}\n\n{options.statement}\n\n"
            f"URI: https://{options.domain}\nVersion: 1\nChain ID: {options.chain}\nNonce: {run}{number:010d}\n"
            f"Issued At: {issued_at}"
        )
        challenge = base64.b64encode(message.encode()).decode()
        body = f'{{"ownerId":"eip155:{options.chain}:{owner}","challenge":"{challenge}"}}'
        requests.append(
            f"POST /v1/customers/{run[:8]}-0000-4000-8000-{number:012x}/challenge/sign HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {options.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    return requests


async def main(options: argparse.Namespace) -> None:
    """Send and print."""
    due = schedule(options.rate, options.seconds, options.seed)
    requests = list(zip(due, requests_for(options, len(due)), strict=True))
    generator = Generator(options.patience)
    await generator.run(options.port, requests)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    result = {name: percentile(generator.latencies, share) * 1e3 for name, share in shares.items()}
    late = percentile(generator.late, 0.99) * 1e3
    print(json.dumps(result | {"count": len(due), "failed": generator.failed, "late": late}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, form in {"port": int, "rate": float, "seconds": float, "seed": int, "patience": float}.items():
        parser.add_argument(f"--{name}", type=form, required=True)
    for name in ("owners", "chain", "domain", "statement", "token"):
        parser.add_argument(f"--{name}", required=True)
    # select() takes a timeout in microseconds; epoll's is in milliseconds, which would send requests late.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    sys.exit(loop.run_until_complete(main(parser.parse_args())))
