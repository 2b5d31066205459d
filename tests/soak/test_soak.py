"""Soak runs: a short one and the full one."""

from __future__ import annotations

import pytest

from tests.soak.plan import SoakPlan
from tests.soak.run import run_soak
from tests.soak.table import as_text
from tests.soak.verdict import problems


async def _check_passes(plan: SoakPlan) -> None:
    run = await run_soak(plan)
    found = problems(run)
    assert not found, as_text(run, found)
    assert run.outcomes["verified"] > 0.8 * plan.challenges
    assert run.logs.events["challenge.taken_over"] > 0


async def test_short_soak_run_breaks_no_rule() -> None:
    """Too short for the rule about memory, hence its wide limit."""
    await _check_passes(
        SoakPlan(challenges=300, concurrency=8, max_age=12.0, outages=1, outage_seconds=1.0, growth_allowed=0.3)
    )


@pytest.mark.heavy
@pytest.mark.timeout(3600)
async def test_soak_run_of_100_000_challenges_breaks_no_rule() -> None:
    """Memory, descriptors and threads are flat, Redis is empty at the end, and no log contains a secret."""
    await _check_passes(SoakPlan())
