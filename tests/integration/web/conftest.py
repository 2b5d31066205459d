from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.integration.web.site import Site, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """The HTTP API with a long time limit."""
    async with open_site() as opened:
        yield opened


@pytest.fixture
async def impatient_site() -> AsyncIterator[Site]:
    """The HTTP API with a time limit of a quarter of a second."""
    async with open_site(answer_within=timedelta(milliseconds=250)) as opened:
        yield opened
