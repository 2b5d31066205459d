from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.application.use_cases import NO_TIME, FakeSystem, Replica


@pytest.fixture
async def system() -> AsyncIterator[FakeSystem]:
    """A system of fakes; at its end the promises that hold in every test are looked after."""
    system = FakeSystem()
    yield system
    await system.close()


@pytest.fixture
async def no_error_unseen(system: FakeSystem) -> AsyncIterator[None]:
    """See that the event loop has no error to report that nobody looked at."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    yield
    await system.close()
    gc.collect()  # an error that nobody has looked at is reported when its task is collected
    assert not reported


@pytest.fixture
def replica(system: FakeSystem) -> Replica:
    """One process in it."""
    return system.replica()


@pytest.fixture
def hasty(system: FakeSystem) -> Replica:
    """One process that tries everything once and leaves the rest to recovery."""
    return system.replica(work_timeout=NO_TIME)
