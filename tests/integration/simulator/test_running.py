"""Running a simulator: inside a process, and as a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import aiohttp
import pytest

from signer.simulator.app import STATE, create_app, run, serving
from signer.simulator.settings import SimulatorSettings
from signer.simulator.state import SimulatorState
from tests.support.servers import free_port


async def test_serving_takes_a_free_port_and_gives_it_back() -> None:
    """The origin answers while the context is open, and no longer."""
    async with serving(SimulatorSettings()) as simulator, aiohttp.ClientSession() as session:
        assert simulator.base_url == f"{simulator.origin}/v1"
        async with session.get(f"{simulator.origin}/_sim/ledger") as response:
            assert response.status == 200
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{simulator.origin}/_sim/ledger")


async def test_run_serves_until_it_is_cancelled() -> None:
    """And ends with the cancellation."""
    port = free_port()
    task = asyncio.create_task(run(SimulatorSettings(), "127.0.0.1", port))
    async with aiohttp.ClientSession() as session:
        while not task.done():
            try:
                async with session.get(f"http://127.0.0.1:{port}/_sim/faults") as response:
                    assert response.status == 200
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_app_carries_its_state() -> None:
    """For whoever wants to look inside."""
    assert isinstance(create_app(SimulatorSettings())[STATE], SimulatorState)


def test_the_settings_are_cheap_to_import() -> None:
    """The command line builds its options from them: no siwe, web3 or aiohttp on that way."""
    script = "import sys, signer.simulator.settings; print({'siwe', 'web3', 'aiohttp'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "set()"
