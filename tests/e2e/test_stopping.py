"""What callers see while a replica stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from signer.devsite.site import LocalSite, Replica
from tests.e2e.conftest import OpenSite


async def start_replica(site: LocalSite, pre_stop: float) -> Replica:
    """Start another replica with this ``http.pre_stop``."""
    config = site.folder / "signer.toml"
    config.write_text(config.read_text().replace("pre_stop = 0\n", f"pre_stop = {pre_stop}\n"))
    return await site.start_replica()


async def refuses_connections(replica: Replica) -> None:
    """Wait until the replica does not listen any more."""
    host, port = replica.base_url.removeprefix("http://").split(":")
    async with asyncio.timeout(20):
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
            except ConnectionRefusedError:
                return
            await asyncio.sleep(0.02)


def card_api_process(site: LocalSite) -> int:
    """Return the process id of the simulated card API."""
    secret = bytes(site.folder / "card-api/api-secret")
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if b"simulate" in words and secret in words:
                return int(file.parent.name)
    raise LookupError


@contextmanager
def hanging_card_api(site: LocalSite) -> Iterator[None]:
    """Let the card API accept requests and answer none."""
    process = card_api_process(site)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_keep_alive_client_sees_no_failure_while_a_replica_stops(open_site: OpenSite) -> None:
    """It gets ``Connection: close`` with a good response, and can connect again until it moves to another replica."""
    site = await open_site()
    stopping = await start_replica(site, pre_stop=8)
    path = f"/v1/customers/{(await site.create_customer())['id']}/challenge/sign"

    async def sign(client: aiohttp.ClientSession, replica: Replica) -> bool:
        """Return whether the connection stays open."""
        body = {"ownerId": str(site.owner)}
        async with client.post(replica.base_url + path, json=body, headers=site.authorization) as response:
            assert (response.status, (await response.json())["state"]) == (200, "verified")
            return "Connection" not in response.headers

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:
        assert [await sign(client, stopping) for _ in range(3)] == [True] * 3
        stopping.process.signal(signal.SIGTERM)
        while await sign(client, stopping):
            pass
        async with client.get(f"{stopping.base_url}/readyz") as response:
            assert (response.status, (await response.json())["code"]) == (503, "shutting_down")
        assert [await sign(client, stopping) for _ in range(3)] == [False] * 3
        ended = asyncio.create_task(stopping.process.wait())
        while not ended.done():
            assert await sign(client, site.replicas[0])
        assert await ended == 0
    await refuses_connections(stopping)
    stopped = await stopping.process.wait_for("service.stopped", 5)
    assert stopped["duration_ms"] >= 7900  # a timer may end some milliseconds early


async def test_old_connection_gets_503_with_close_after_the_listener_has_closed(open_site: OpenSite) -> None:
    """New connections are refused by then; a running request still gets its result."""
    site = await open_site(card_api="request_timeout = 15", http="answer_within = 15", redis="lease = 60")
    replica = site.replicas[0]
    customer = await site.create_customer()
    async with aiohttp.ClientSession(site.base_url) as client:
        assert (await client.get("/healthz")).status == 200
        with hanging_card_api(site):
            request = asyncio.create_task(site.sign(customer["id"], challenge=customer["challenge"]))
            await replica.process.wait_for("challenge.signed", 10)
            replica.process.signal(signal.SIGTERM)
            await refuses_connections(replica)
            response = await client.post(
                f"/v1/customers/{customer['id']}/challenge/sign",
                json={"ownerId": str(site.owner)},
                headers=site.authorization,
            )
            assert (response.status, (await response.json())["code"]) == (503, "shutting_down")
            assert (response.headers["Connection"], response.headers["Retry-After"]) == ("close", "1")
    assert (await request)[1]["state"] == "verified"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_sigint_does_not_wait_for_pre_stop(open_site: OpenSite, number: signal.Signals) -> None:
    """Ctrl-C ends the process at once; after SIGTERM it still works."""
    site = await open_site()
    replica = await start_replica(site, pre_stop=600)
    replica.process.signal(number)
    await replica.process.wait_for("service.stopping", 5)
    if number is signal.SIGINT:
        assert await asyncio.wait_for(replica.process.wait(), 20) == 0
    else:
        assert (await site.get("/healthz"))[0] == 200
        await replica.process.kill()
