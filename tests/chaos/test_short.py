"""The short form of ``make chaos``: a handful of faults from a fixed seed, in less than a minute.

It runs beside other tests, so it asks what became of the challenges and not how long it took.
"""

from __future__ import annotations

import pytest

from tests.chaos.plan import FaultKind, Plan
from tests.chaos.run import run_chaos
from tests.chaos.table import as_findings, as_text
from tests.chaos.verdict import violations

_MOST_TELLING = {
    FaultKind.REPLICA_KILLED_AT_MOVE: 1,
    FaultKind.REPLICA_STALLED_AT_MOVE: 1,
    FaultKind.STORE_STALLED: 1,
    FaultKind.STORE_ANSWERS_LOST: 2,
    FaultKind.API_ANSWERS_LOST: 1,
    FaultKind.API_ANSWERS_DROPPED: 1,
    FaultKind.API_FAILS_AFTER_COMMIT: 1,
    FaultKind.API_CONFLICTS_BARE: 1,
}


@pytest.mark.needs("softhsm2-util")
async def test_nothing_is_lost_and_nothing_signed_twice() -> None:
    """Sixty challenges, ten faults, three replicas, half of the keys in SoftHSM: no rule is broken."""
    plan = Plan(seed=7, challenges=60, faults=10, load_seconds=18.0, max_age=15.0, deck=_MOST_TELLING)
    run = await run_chaos(plan)
    found = violations(run, timed=False)
    assert not found, f"{as_findings(run, found)}\n{as_text(run, found)}"
    assert run.faults.total() == 10
    assert len(run.customers) == 60
    assert sum(record["state"] == "verified" for record in run.records.values()) > 40


_FAILOVERS = {
    FaultKind.STORE_PRIMARY_KILLED: 2,
    FaultKind.STORE_PRIMARY_STALLED: 2,
    FaultKind.STORE_FAILED_OVER: 2,
    FaultKind.STORE_REPLICA_STALLED: 1,
    FaultKind.REPLICA_KILLED_AT_MOVE: 1,
    FaultKind.STORE_ANSWERS_LOST: 2,
    FaultKind.API_ANSWERS_LOST: 1,
}


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.needs("softhsm2-util")
@pytest.mark.parametrize("store", ["sentinel", "cluster"])
async def test_nothing_is_lost_in_a_failover_of_the_store(store: str) -> None:
    """The primary is killed, stopped past its own replacement, and replaced by command: no rule is broken."""
    plan = Plan.of_size(7, 150, 14, store=store, deck=_FAILOVERS)
    run = await run_chaos(plan)
    found = violations(run, timed=False)
    assert not found, f"{as_findings(run, found)}\n{as_text(run, found)}"
    assert len(run.failovers) >= 6
    assert sum(record["state"] == "verified" for record in run.records.values()) > 75
