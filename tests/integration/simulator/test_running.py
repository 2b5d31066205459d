"""Running a simulator inside a process."""

from __future__ import annotations

import subprocess
import sys

import aiohttp
import pytest

from signer.simulator.app import STATE, create_app, serving
from signer.simulator.settings import SimulatorSettings
from signer.simulator.state import SimulatorState


async def test_serving_uses_free_port_until_context_ends() -> None:
    """Afterwards no connection is accepted."""
    async with serving(SimulatorSettings()) as simulator, aiohttp.ClientSession() as session:
        assert simulator.base_url == f"{simulator.origin}/v1"
        async with session.get(f"{simulator.origin}/_sim/ledger") as response:
            assert response.status == 200
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{simulator.origin}/_sim/ledger")


async def test_app_stores_its_state() -> None:
    """A test can read and change it."""
    assert isinstance(create_app(SimulatorSettings())[STATE], SimulatorState)


def test_settings_are_cheap_to_import() -> None:
    """They import neither siwe nor web3 nor aiohttp."""
    script = "import sys, signer.simulator.settings; print({'siwe', 'web3', 'aiohttp'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "set()"
