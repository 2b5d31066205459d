"""A Valkey for all, and a service of each test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.application.backoff import Backoff
from signer.domain.policy import SigningPolicy
from tests.integration.service.site import Site, open_site
from tests.support.servers import RedisServer, valkey

StartSite = Callable[..., Awaitable[Site]]


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Valkey; every service keeps its records under a prefix of its own."""
    with valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take siwe's verdict on the default settings as given: it costs seconds, and has tests of its own."""

    async def agree(_policy: SigningPolicy, _within: timedelta) -> None:
        return

    monkeypatch.setattr("signer.bootstrap.service.check_parser_against_siwe", agree)


@pytest.fixture(autouse=True)
def quick_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the breaker's first cool-down, which is no setting."""
    cool_down = Backoff(first_pause=timedelta(seconds=0.2), longest_pause=timedelta(seconds=30))
    monkeypatch.setattr("signer.bootstrap.card_api.COOL_DOWN", cool_down)


@pytest.fixture
async def start(tmp_path: Path, redis: RedisServer) -> AsyncIterator[StartSite]:
    """Starts a service, with further settings by section."""
    async with AsyncExitStack() as stack:

        async def start_one(**sections: Any) -> Site:  # noqa: ANN401 - a table of settings each
            return await stack.enter_async_context(open_site(tmp_path, redis, **sections))

        yield start_one


@pytest.fixture
async def site(start: StartSite) -> Site:
    """A service with the usual settings."""
    return await start()
