"""Complete sites for the end-to-end tests: processes, HTTP and a Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from signer.devsite.site import LocalSite, SiteOptions, local_site

OpenSite = Callable[..., Awaitable[LocalSite]]


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
