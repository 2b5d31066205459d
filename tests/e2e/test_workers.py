"""Several workers on one port: they serve, end, are replaced, reload and stop together."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from signer.devsite.site import LocalSite
from tests.e2e.conftest import OpenSite, log_lines
from tests.support.servers import free_port

SIGNATURES = "signer_signing_duration_seconds_count"


async def open_two_workers(open_site: OpenSite, **options: str) -> LocalSite:
    """Open a site with two workers, and wait until both are ready."""
    site = await open_site(http="workers = 2", **options)
    await site.replicas[0].process.wait_for("service.ready", 60)  # of the second one
    return site


def workers_of(site: LocalSite) -> list[int]:
    """Return the process ids of the workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            _, _, rest = (folder / "stat").read_text().rpartition(")")
            if rest.split()[1] == str(site.replicas[0].process.pid):
                found.append(int(folder.name))
    return found


def loaded_and_threads(pid: int) -> tuple[bool, int]:
    """Return whether a process has loaded SoftHSM, and how many threads it has."""
    process = Path(f"/proc/{pid}")
    return "softhsm" in (process / "maps").read_text(), len(list((process / "task").iterdir()))


async def sign_on_new_connection(site: LocalSite, customer: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Sign, by the worker that the kernel chooses."""
    async with aiohttp.ClientSession() as client:
        url = f"{site.base_url}/v1/customers/{customer['id']}/challenge/sign"
        body = {"ownerId": str(site.owner)}
        async with client.post(url, json=body, headers=site.authorization) as response:
            return response.status, await response.json()


async def lines_of_both(site: LocalSite, event: str) -> list[dict[str, Any]]:
    """Return two lines of this event, one of each worker."""
    lines = [line for line in await log_lines(site.replicas, event, 2) if line["event"] == event]
    assert [line["worker"] for line in lines] in ([0, 1], [1, 0])
    return lines


def have_ended(pids: list[int]) -> None:
    """Wait until none of these processes is left."""
    ends = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < ends
        time.sleep(0.02)


async def test_two_workers_share_one_port_and_sign_a_challenge_once(open_site: OpenSite) -> None:
    """Requests for one challenge on many connections reach both, and each gets the same signature."""
    site = await open_two_workers(open_site)
    customer = await site.create_customer()
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        while {line["worker"] for line in lines if line["event"] == "http.request"} != {0, 1}:
            results = await asyncio.gather(*(sign_on_new_connection(site, customer) for _ in range(16)))
            assert {(status, body["state"]) for status, body in results} == {(200, "verified")}
            assert len({body["signature"] for _, body in results}) == 1
            lines += await log_lines(site.replicas, "http.request", 16)
    assert sum(line["event"] == "challenge.signed" for line in lines) == 1
    assert len((await site.ledger(customer["id"]))["entries"]) == 1


async def test_reload_by_signal_or_request_reaches_both_workers(open_site: OpenSite) -> None:
    """The worker that was asked reloads once, and the other one by a signal."""
    site = await open_two_workers(open_site)
    site.replicas[0].process.signal(signal.SIGHUP)
    assert [line["cause"] for line in await lines_of_both(site, "keys.reloaded")] == ["signal", "signal"]
    async with site.http.post(f"{site.base_url}/v1/keys/reload", headers=site.authorization) as response:
        assert response.status == 202
    assert {line["cause"] for line in await lines_of_both(site, "keys.reloaded")} == {"signal", "request"}


async def test_killed_worker_is_replaced_while_the_other_serves(open_site: OpenSite) -> None:
    """The successor logs how it ended. The workers end with the supervisor."""
    site = await open_two_workers(open_site)
    process = site.replicas[0].process
    customer = await site.create_customer()
    first, other = workers_of(site)
    os.kill(first, signal.SIGKILL)
    have_ended([first])
    assert (await sign_on_new_connection(site, customer))[0] == 200
    ended = await process.wait_for("worker.ended", 20)
    assert (ended["reason"], ended["count"], ended["level"]) == ("SIGKILL", 1, "error")
    ready = await process.wait_for("service.ready", 20)
    assert (ready["worker"], f"http://{ready['host']}:{ready['port']}") == (ended["worker"], site.base_url)
    workers = workers_of(site)
    assert len(workers) == 2
    assert other in workers
    await process.kill()
    have_ended(workers)


async def test_sigterm_drains_both_workers_once(open_site: OpenSite) -> None:
    """Requests in flight on both get their result; the exit status is 0, and nothing is handed back."""
    site = await open_two_workers(open_site)
    process = site.replicas[0].process
    await site.set_faults({"kind": "latency", "route": "sign", "seconds": 1.5})
    requests: list[asyncio.Task[tuple[int, dict[str, Any]]]] = []
    served: set[int] = set()
    while served != {0, 1}:
        requests.append(asyncio.create_task(sign_on_new_connection(site, await site.create_customer())))
        served.add((await process.wait_for("challenge.signed", 10))["worker"])
    process.signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert {(status, body["state"]) for status, body in await asyncio.gather(*requests)} == {(200, "verified")}
    lines = process.take_events()
    stopped = [line for line in lines if line["event"] == "service.stopped"]
    assert sorted((line["worker"], line["left"]) for line in stopped) == [(0, 0), (1, 0)]
    assert not [line for line in lines if line["event"] == "worker.ended"]


@pytest.mark.needs("softhsm2-util")
async def test_two_workers_sign_with_one_token(open_site: OpenSite) -> None:
    """Each has its own session and its own port for metrics; the supervisor has not loaded the library."""
    port = free_port(2)
    site = await open_two_workers(open_site, kind="pkcs11", metrics=f"port = {port}")
    assert loaded_and_threads(site.replicas[0].process.pid) == (False, 1)
    signed = [0.0, 0.0]
    async with asyncio.timeout(60):
        while not all(signed):
            assert (await sign_on_new_connection(site, await site.create_customer()))[0] == 200
            for index in (0, 1):
                async with site.http.get(f"http://127.0.0.1:{port + index}/metrics") as response:
                    metrics = (await response.text()).splitlines()
                signed[index] = sum(float(line.split()[-1]) for line in metrics if line.startswith(SIGNATURES))
