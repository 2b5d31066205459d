"""Complete sites for the end-to-end tests: processes, HTTP and a Valkey.

Starting a site takes two seconds of CPU time. A test that stops nothing and needs no settings of its own
takes the fixture ``site`` and the mark ``on_shared_site``; every other one opens its own with ``open_site``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import pytest
import pytest_asyncio

from signer.devsite.site import LocalSite, Replica, SiteOptions, local_site

OpenSite = Callable[..., Awaitable[LocalSite]]
on_shared_site = pytest.mark.asyncio(loop_scope="module")
Response = TypeVar("Response", bound=tuple[Any, ...])
_AT_DEBUG_LEVEL: Final = {"logging": 'level = "debug"'}


async def log_lines(replicas: Sequence[Replica], event: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Return the unread log lines of these replicas, once so many of them are of this event."""
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while sum(line["event"] == event for line in lines) < at_least:
            lines += [line for replica in replicas for line in replica.process.take_events()]
            await asyncio.sleep(0.02)
    return lines


async def repeat_while_in_progress(request: Callable[[], Awaitable[Response]]) -> Response:
    """Repeat a request while the response is ``challenge_in_progress``; its last part is the body."""
    async with asyncio.timeout(30):
        while (response := await request())[-1].get("code") == "challenge_in_progress":
            pass
    return response


async def sign_and_verify(site: LocalSite, customer_id: str) -> dict[str, Any]:
    """Request a signature, again while its work goes on; return the record, which must be verified."""
    async with asyncio.timeout(30):
        while True:
            status, record = await repeat_while_in_progress(lambda: site.sign(customer_id))
            if status != 202:
                assert (status, record["state"]) == (200, "verified")
                return record
            await asyncio.sleep(0.05)


@pytest.fixture
async def open_site(tmp_path: Path) -> AsyncIterator[OpenSite]:
    """Return a function that opens a site, which is closed at the end of the test."""
    async with AsyncExitStack() as stack:

        async def opened(
            *,
            simulate: tuple[str, ...] = (),
            expected_owners: tuple[str, ...] = (),
            kind: str = "keystore",
            **settings: str,
        ) -> LocalSite:
            options = SiteOptions(
                settings=_AT_DEBUG_LEVEL | settings,
                simulate=simulate,
                keys=kind,
                expected_owners=expected_owners,
            )
            return await stack.enter_async_context(local_site(tmp_path, options=options))

        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _shared_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSite]:
    """One site for the tests of a module."""
    options = SiteOptions(settings=_AT_DEBUG_LEVEL)
    async with local_site(tmp_path_factory.mktemp("site"), options=options) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(_shared_site: LocalSite) -> AsyncIterator[LocalSite]:
    """The module's site, without faults, counted requests, unread log lines and open connections of other tests."""
    async with aiohttp.ClientSession() as http:
        for part in ("faults", "ledger"):
            (await http.delete(f"{_shared_site.card_api}/_sim/{part}")).raise_for_status()
        await _read_old_lines(_shared_site, http)
        of_the_module, _shared_site.http = _shared_site.http, http
        yield _shared_site
        _shared_site.http = of_the_module


async def _read_old_lines(site: LocalSite, http: aiohttp.ClientSession) -> None:
    """Read the log up to the line of a request that is sent now."""
    last = str(uuid.uuid4())
    await http.get(f"{site.base_url}/v1/keys", headers=site.authorization | {"X-Request-Id": last})
    while not any(line.get("request_id") == last for line in await log_lines(site.replicas, "http.request")):
        pass
