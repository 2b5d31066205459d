"""The short form of ``make chaos``: ten faults from a fixed seed, in less than a minute.

It runs beside other tests, so it does not check the rules about time.
"""

from __future__ import annotations

import pytest

from tests.chaos.plan import ChaosFaultKind, Plan
from tests.chaos.run import run_chaos
from tests.chaos.table import as_text, describe_violations
from tests.chaos.verdict import violations

_FAULTS = {
    ChaosFaultKind.REPLICA_KILLED_AT_MOVE: 1,
    ChaosFaultKind.REPLICA_STALLED_AT_MOVE: 1,
    ChaosFaultKind.STORE_STALLED: 1,
    ChaosFaultKind.STORE_RESPONSES_LOST: 1,
    ChaosFaultKind.API_RESPONSES_LOST: 1,
    ChaosFaultKind.API_REFUSES_SIGNATURES: 1,
    ChaosFaultKind.API_RESPONSES_DROPPED: 1,
    ChaosFaultKind.API_FAILS_AFTER_COMMIT: 1,
    ChaosFaultKind.API_CONFLICTS_BARE: 1,
}


@pytest.mark.needs("softhsm2-util")
async def test_short_run_breaks_no_guarantee() -> None:
    """Sixty challenges, ten faults, three replicas, half of the keys in SoftHSM."""
    plan = Plan(seed=7, challenges=60, faults=10, load_seconds=18.0, max_age=15.0, fault_weights=_FAULTS)
    run = await run_chaos(plan)
    found = violations(run, timed=False)
    assert not found, f"{describe_violations(run, found)}\n{as_text(run, found)}"
    assert run.faults.total() == 10
    assert len(run.customers) == 60
    assert sum(record["state"] == "verified" for record in run.records.values()) > 40


_FAILOVERS = {
    ChaosFaultKind.STORE_PRIMARY_KILLED: 2,
    ChaosFaultKind.STORE_PRIMARY_STALLED: 2,
    ChaosFaultKind.STORE_FAILED_OVER: 2,
    ChaosFaultKind.STORE_REPLICA_STALLED: 1,
    ChaosFaultKind.REPLICA_KILLED_AT_MOVE: 1,
    ChaosFaultKind.STORE_RESPONSES_LOST: 2,
    ChaosFaultKind.API_RESPONSES_LOST: 1,
}


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.needs("softhsm2-util")
@pytest.mark.parametrize("store", ["sentinel", "cluster"])
async def test_store_failovers_break_no_guarantee(store: str) -> None:
    """The primary is killed, stopped until another one replaced it, and replaced by command."""
    plan = Plan.of_size(7, 150, 14, store=store, fault_weights=_FAILOVERS)
    run = await run_chaos(plan)
    found = violations(run, timed=False)
    assert not found, f"{describe_violations(run, found)}\n{as_text(run, found)}"
    assert len(run.failovers) >= 6
    assert sum(record["state"] == "verified" for record in run.records.values()) > 75
