from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import web

from tests.integration.web.site import Site, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """The HTTP API with a long time limit."""
    async with open_site() as opened:
        yield opened


@pytest.fixture
async def impatient_site() -> AsyncIterator[Site]:
    """The HTTP API with a time limit of half a second."""
    async with open_site(answer_within=timedelta(milliseconds=500)) as opened:
        yield opened


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event that is set when the service starts to read a body."""
    started = asyncio.Event()
    read = web.BaseRequest.read

    async def notice_and_read(request: web.BaseRequest) -> bytes:
        started.set()
        return await read(request)

    monkeypatch.setattr(web.BaseRequest, "read", notice_and_read)
    return started
