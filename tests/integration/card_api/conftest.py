"""A running simulator, our client that calls it, and servers that send prepared bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from signer.adapters.card_api.http_transport import open_session
from signer.simulator.app import serving
from signer.simulator.settings import SimulatorSettings
from tests.integration.card_api.calling import API_KEY, API_SECRET, KEY_ID, Calling, Stopwatch, make_client, request_key
from tests.integration.card_api.raw_server import RawServer

StartCalling = Callable[..., Awaitable[Calling]]
StartRaw = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The connection pool, as the service opens it."""
    async with open_session() as opened:
        yield opened


@pytest.fixture
async def start(session: aiohttp.ClientSession, tmp_path: Path) -> AsyncIterator[StartCalling]:
    """Return a function that starts a simulator and a client with a test's settings."""
    async with AsyncExitStack() as stack:

        async def start_one(simulator: dict[str, Any] | None = None, **client: Any) -> Calling:  # noqa: ANN401 - of many types
            known = {
                "api_key": API_KEY,
                "api_secret": API_SECRET,
                "signing_keys": {KEY_ID: request_key().public_pem.decode()},
                "judge": "fast",
            }
            running = await stack.enter_async_context(serving(SimulatorSettings(**known | (simulator or {}))))
            monotonic = Stopwatch()
            made = make_client(running.base_url, session, tmp_path, monotonic, **client)
            stack.push_async_callback(made.aclose)
            return Calling(running, made, tmp_path, monotonic)

        yield start_one


@pytest.fixture
async def calling(start: StartCalling) -> Calling:
    """A simulator and a client with the default settings."""
    return await start()


@pytest.fixture
async def start_raw() -> AsyncIterator[StartRaw]:
    """Return a function that starts servers with prepared responses."""
    async with AsyncExitStack() as stack:

        async def start_one(*replies: bytes, **how: Any) -> RawServer:  # noqa: ANN401 - as above
            return await stack.enter_async_context(RawServer(list(replies), **how))

        yield start_one
