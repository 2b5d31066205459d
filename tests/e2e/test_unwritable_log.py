"""A service whose log cannot be written: it responds, signs nothing, and goes on when the log works again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from signer.devsite.site import LocalSite, _environment
from tests.e2e.conftest import OpenSite
from tests.support.servers import free_port

SMALL_QUEUE = """
from signer.observability import log_writer
log_writer.ROOM_FOR_OTHERS = 100_000
"""
"""So that a test's requests can fill it."""

SERVE = "from signer.cli.main import main; main()"
STRANGERS = 1500
"""Their lines fill the pipe (64 KiB) and the small queue."""


class Log:
    """What a replica writes to its standard output, read only when the test says so."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream

    async def wait_for(self, event: str) -> dict[str, Any]:
        """Read until a line of this event, and return it."""
        async with asyncio.timeout(60):
            while True:
                line: dict[str, Any] = json.loads(await self._stream.readline())
                if line["event"] == event:
                    return line


@asynccontextmanager
async def open_log_pipe() -> AsyncIterator[tuple[Log, int, asyncio.ReadTransport]]:
    """Open a pipe; yield the log, the end to write to, and what closes the other end."""
    reads_from, writes_to = os.pipe()
    stream = asyncio.StreamReader(limit=1 << 15)  # it stops reading when it has twice as much
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reads_from, "rb")
    )
    try:
        yield Log(stream), writes_to, transport
    finally:
        transport.close()
        os.close(writes_to)


@asynccontextmanager
async def replica_logging_to(site: LocalSite, stdout: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one more replica of a site."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SMALL_QUEUE + SERVE, "serve", "--config", str(site.folder / "signer.toml")),
        env={**_environment(), **site._keys_environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


class Caller:
    """A caller of that replica."""

    def __init__(self, site: LocalSite, base_url: str) -> None:
        self._site = site
        self._base_url = base_url

    async def get(self, path: str) -> tuple[int, str | None]:
        """GET a path without a token; return the status and the code. It must not take long."""
        async with asyncio.timeout(10), self._site.http.get(self._base_url + path) as response:
            return response.status, (await response.json()).get("code")

    async def sign(self, customer_id: str) -> tuple[int, str | None, str | None]:
        """Request a signature; return the status, the code and ``Retry-After``."""
        url = f"{self._base_url}/v1/customers/{customer_id}/challenge/sign"
        body = {"ownerId": str(self._site.owner)}
        async with self._site.http.post(url, json=body, headers=self._site.authorization) as response:
            answer = await response.json()
            return response.status, answer.get("code"), response.headers.get("Retry-After")

    async def wait_until_ready(self, status: int, code: str | None) -> None:
        """Wait until readiness has this status and code."""
        async with asyncio.timeout(60):
            while True:
                if await self.get("/readyz") == (status, code):
                    return
                await asyncio.sleep(0.05)


async def test_stopped_log_reader_stops_signing_and_nothing_else(open_site: OpenSite) -> None:
    """Probes are answered throughout. When the reader goes on, it learns how many lines are missing."""
    site = await open_site(logging='level = "info"')
    customer = await site.create_customer()
    async with open_log_pipe() as (log, stdout, _), replica_logging_to(site, stdout):
        ready = await log.wait_for("service.ready")
        caller = Caller(site, f"http://{ready['host']}:{ready['port']}")
        for _ in range(STRANGERS):
            assert await caller.get("/v1/keys") == (401, "unauthenticated")
        assert await caller.get("/healthz") == (200, None)
        await caller.wait_until_ready(503, "audit_unavailable")
        assert await caller.sign(customer["id"]) == (503, "audit_unavailable", "5")
        assert (await site.ledger(customer["id"]))["entries"] == []

        lost = await log.wait_for("log.lines_lost")
        assert 0 < lost["count"] < STRANGERS
        await caller.wait_until_ready(200, None)
        assert (await caller.sign(customer["id"]))[0] == 200
        assert (await log.wait_for("challenge.settled"))["state"] == "verified"


@pytest.mark.parametrize("required", [True, False])
async def test_closed_log_pipe_stops_signing_if_the_log_is_required(open_site: OpenSite, required: bool) -> None:
    """With ``audit.required = false`` the service signs without a log, and readiness shows why it has none."""
    site = await open_site(audit=f"required = {json.dumps(required)}")
    customer = await site.create_customer()
    async with open_log_pipe() as (log, stdout, transport), replica_logging_to(site, stdout):
        ready = await log.wait_for("service.ready")
        caller = Caller(site, f"http://{ready['host']}:{ready['port']}")
        transport.close()
        await asyncio.sleep(0)  # the transport closes its end in the next turn of the event loop
        if required:
            assert await caller.sign(customer["id"]) == (503, "audit_unavailable", "5")
            await caller.wait_until_ready(503, "audit_unavailable")
        else:
            assert (await caller.sign(customer["id"]))[0] == 200
            await caller.wait_until_ready(200, None)


async def test_full_disk_stops_signing(open_site: OpenSite) -> None:
    """Each write to /dev/full fails as on a full disk."""
    site = await open_site()
    customer = await site.create_customer()
    config = site.folder / "signer.toml"
    config.write_text(config.read_text().replace("port = 0", f"port = {(port := free_port())}"))
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123
        async with replica_logging_to(site, full.fileno()):
            caller = Caller(site, f"http://127.0.0.1:{port}")
            async with asyncio.timeout(60):
                while True:
                    try:
                        if await caller.get("/readyz") == (503, "audit_unavailable"):
                            break
                    except OSError:
                        pass  # it does not listen yet
                    await asyncio.sleep(0.05)
            assert await caller.sign(customer["id"]) == (503, "audit_unavailable", "5")
            assert (await site.ledger(customer["id"]))["entries"] == []
