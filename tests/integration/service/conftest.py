"""One Valkey for all tests, and one service for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.application.backoff import Backoff
from signer.bootstrap.readiness_watch import ReadinessWatch
from signer.domain.policy import SigningPolicy
from tests.integration.service.site import Site, open_site
from tests.support.quick_breaker import BREAKER_DEFAULTS
from tests.support.servers import RedisServer, valkey

StartSite = Callable[..., Awaitable[Site]]


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Valkey; every service has its own key prefix."""
    with valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def skip_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the self-check with siwe: it takes seconds and has its own tests."""

    async def pass_check(_policy: SigningPolicy, _within: timedelta) -> None:
        return

    monkeypatch.setattr("signer.bootstrap.start_checks.check_parser_against_siwe", pass_check)


@pytest.fixture
def usual_watch() -> None:
    """Run the checks in the background, as the service does."""


@pytest.fixture(autouse=True)
def watch_only_if_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run no checks in the background: their calls would get the responses that a test prepares for its own."""

    async def wait(_watch: ReadinessWatch) -> None:
        await asyncio.Event().wait()

    if not {"quick_watch", "usual_watch"} & set(request.fixturenames):
        monkeypatch.setattr("signer.bootstrap.readiness_watch.ReadinessWatch.run", wait)


@pytest.fixture(autouse=True)
def quick_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the circuit breaker's first cool-down, which is not a setting."""
    cool_down = Backoff(first_pause=timedelta(seconds=0.2), longest_pause=timedelta(seconds=30))
    monkeypatch.setitem(BREAKER_DEFAULTS, "cool_down", cool_down)


@pytest.fixture
async def start(tmp_path: Path, redis: RedisServer) -> AsyncIterator[StartSite]:
    """Return a function that starts a service, with more settings by section."""
    async with AsyncExitStack() as stack:

        async def start_one(**sections: Any) -> Site:  # noqa: ANN401 - a table of settings each
            return await stack.enter_async_context(open_site(tmp_path, redis, **sections))

        yield start_one


@pytest.fixture
async def site(start: StartSite) -> Site:
    """A service with the settings of the tests."""
    return await start()
