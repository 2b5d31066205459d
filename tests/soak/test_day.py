"""A day in miniature: the whole one, and a quarter of an hour of it."""

from __future__ import annotations

import pytest

from tests.soak.plan import Day
from tests.soak.run import run_day
from tests.soak.table import as_text
from tests.soak.verdict import complaints


async def _passes(day: Day) -> None:
    run = await run_day(day)
    found = complaints(run)
    assert not found, as_text(run, found)
    assert run.endings["verified"] > 0.8 * day.challenges
    assert run.logs.events["challenge.taken_over"] > 0


async def test_a_few_hundred_challenges_leave_nothing_behind() -> None:
    """Long enough for every rule but that of the memory, which has not settled by then."""
    await _passes(Day(challenges=300, at_once=8, max_age=12.0, outages=1, outage_seconds=1.0, growth_allowed=0.3))


@pytest.mark.heavy
@pytest.mark.timeout(3600)
async def test_a_hundred_thousand_challenges_leave_nothing_behind() -> None:
    """Memory, descriptors and threads are flat, Redis is empty at the end, and no log holds what it must not."""
    await _passes(Day())
