"""A running simulator, and a wallet backend that calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from signer.simulator.app import RunningSimulator, serving
from signer.simulator.settings import SimulatorSettings
from tests.integration.simulator.wallet_backend import KEY_ID, WalletBackend, public_pem

StartSimulator = Callable[..., Awaitable[tuple[RunningSimulator, WalletBackend]]]


@pytest.fixture
async def start() -> AsyncIterator[StartSimulator]:
    """Return a function that starts a simulator with a test's settings, and a backend that has a token."""
    async with AsyncExitStack() as stack:

        async def start_one(**settings: Any) -> tuple[RunningSimulator, WalletBackend]:  # noqa: ANN401 - of many types
            chosen = SimulatorSettings(**{"signing_keys": {KEY_ID: public_pem()}} | settings)
            simulator = await stack.enter_async_context(serving(chosen))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            backend = WalletBackend(session, simulator.origin)
            # Without HTTP, so that this request uses up none of the test's faults.
            backend.token, _ = simulator.state.tokens.issue(chosen.api_key, chosen.api_secret)
            return simulator, backend

        yield start_one


@pytest.fixture
async def running(start: StartSimulator) -> tuple[RunningSimulator, WalletBackend]:
    """A simulator with the default settings, and its backend."""
    return await start()


@pytest.fixture
def simulator(running: tuple[RunningSimulator, WalletBackend]) -> RunningSimulator:
    """The simulator."""
    return running[0]


@pytest.fixture
def backend(running: tuple[RunningSimulator, WalletBackend]) -> WalletBackend:
    """The backend."""
    return running[1]
