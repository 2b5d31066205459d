from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.integration.web.site import Site, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """The HTTP API, with time enough for every answer."""
    async with open_site() as opened:
        yield opened


@pytest.fixture
async def hasty_site() -> AsyncIterator[Site]:
    """The HTTP API, whose callers wait half a second at most."""
    async with open_site(answer_within=timedelta(milliseconds=500)) as opened:
        yield opened
