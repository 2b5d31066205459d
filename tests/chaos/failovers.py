"""The effects of store failovers on a run: time until the service continued, and final states that were lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.chaos.evidence import Evidence
from tests.chaos.plan import InjectedFault
from tests.chaos.stores import StoreFailover

_FINAL: Final = frozenset({"verified", "already_signed", "superseded", "rejected", "expired"})
_ENDS: Final = frozenset({"settle", "expire"})


def forgotten_final_states(run: Evidence) -> frozenset[str]:
    """Return the challenges that were settled on one server and continued on another, which only a failover causes.

    The service does not wait for replicas when it settles. After a lost final state it repeats the delivery under the
    same Idempotency-Key and settles again.
    """
    forgotten = set()
    for name, moves in run.moves_by_challenge.items():
        ended_at: int | None = None
        for move in moves:
            if move.is_refused:
                continue
            is_end = move.script in _ENDS and move.state in _FINAL
            if ended_at not in {None, move.server} and (is_end or move.state not in _FINAL):
                forgotten.add(name)
            if is_end:
                ended_at = move.server
    return frozenset(forgotten)


def first_response_times(run: Evidence) -> Sequence[float]:
    """Return for each failover the seconds from its announcement to the first response of the new primary.

    Recovery polls every server, so there always is a request. Failovers during a fault of a service replica are left
    out.
    """
    return [
        max(min(answered) - failover.announced, 0.0)
        for failover in run.failovers
        if not any(_is_of_replica(fault) and _overlap(fault, failover) for fault in run.injected)
        and (answered := [at for at, server in run.served if server == failover.server and at >= failover.promoted])
    ]


def _is_of_replica(fault: InjectedFault) -> bool:
    return fault.kind.name.startswith("REPLICA")


def _overlap(fault: InjectedFault, failover: StoreFailover) -> bool:
    return fault.began < failover.announced + 1 and failover.began < fault.ended
