"""Complete sites for the end-to-end tests: processes, HTTP and a Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from signer.devsite.site import LocalSite, Replica, SiteOptions, local_site

OpenSite = Callable[..., Awaitable[LocalSite]]


async def log_lines(replicas: Sequence[Replica], event: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Return the unread log lines of these replicas, once so many of them are of this event."""
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while sum(line["event"] == event for line in lines) < at_least:
            lines += [line for replica in replicas for line in replica.process.take_events()]
            await asyncio.sleep(0.02)
    return lines


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
                settings={"logging": 'level = "debug"', **settings},
                simulate=simulate,
                keys=kind,
                expected_owners=expected_owners,
            )
            return await stack.enter_async_context(local_site(tmp_path, options=options))

        yield opened
