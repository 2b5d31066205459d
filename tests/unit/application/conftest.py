from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.application.use_cases import NO_TIME, House, Replica


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A house of fakes; at its end the promises that hold in every test are looked after."""
    house = House()
    yield house
    await house.close()


@pytest.fixture
async def no_error_unseen(house: House) -> AsyncIterator[None]:
    """See that the event loop has no error to report that nobody looked at."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    yield
    await house.close()
    gc.collect()  # an error that nobody has looked at is reported when its task is collected
    assert not reported


@pytest.fixture
def replica(house: House) -> Replica:
    """One process in it."""
    return house.replica()


@pytest.fixture
def hasty(house: House) -> Replica:
    """One process that tries everything once and leaves the rest to recovery."""
    return house.replica(work_for=NO_TIME)
