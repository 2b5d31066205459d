from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.application.house import NO_TIME, House, Replica


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A house of fakes; at its end the promises that hold in every test are looked after."""
    house = House()
    yield house
    await house.close()


@pytest.fixture
def replica(house: House) -> Replica:
    """One process in it."""
    return house.replica()


@pytest.fixture
def hasty(house: House) -> Replica:
    """One process that tries everything once and leaves the rest to recovery."""
    return house.replica(work_for=NO_TIME)
