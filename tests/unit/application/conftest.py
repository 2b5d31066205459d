from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.application.fake_system import ZERO_TIMEOUT, FakeSystem, Replica


@pytest.fixture
async def system() -> AsyncIterator[FakeSystem]:
    """A system of fakes; its ``close`` checks what must hold after every test."""
    system = FakeSystem()
    yield system
    await system.close()


@pytest.fixture
async def no_unretrieved_errors(system: FakeSystem) -> AsyncIterator[None]:
    """Check that no task ends with an exception that is never retrieved."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    yield
    await system.close()
    gc.collect()  # the loop reports an unretrieved exception when its task is collected
    assert not reported


@pytest.fixture
def replica(system: FakeSystem) -> Replica:
    """A replica of the system."""
    return system.add_replica()


@pytest.fixture
def no_retry_replica(system: FakeSystem) -> Replica:
    """A replica that tries everything once and leaves the rest to recovery."""
    return system.add_replica(work_timeout=ZERO_TIMEOUT)
