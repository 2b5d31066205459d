"""What ``signer doctor`` is run against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.cli.installation import Installation, installed
from tests.support.servers import RedisServer, valkey


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    """A Valkey without a weakness; a test restores what it changes."""
    with valkey("--appendonly", "yes") as opened:
        yield opened


@pytest.fixture
async def site(tmp_path: Path, server: RedisServer) -> AsyncIterator[Installation]:
    """An installation in which nothing is wrong."""
    async with installed(tmp_path, server) as opened:
        yield opened
