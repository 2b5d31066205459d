"""What failovers of the store did to a run: how soon it went on after each, and what was forgotten and found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.chaos.evidence import Evidence
from tests.chaos.plan import Struck
from tests.chaos.stores import StoreFailover

_FINAL: Final = frozenset({"verified", "already_signed", "superseded", "rejected", "expired"})
_ENDS: Final = frozenset({"settle", "expire"})


def forgotten_ends(run: Evidence) -> frozenset[str]:
    """Name the challenges that ended at one server, and went on at another: only a failover takes them there.

    An end is not waited for: a lost one is found again, by the same delivery under the same key.
    """
    forgotten = set()
    for name, moves in run.moves_of.items():
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


def first_answers(run: Evidence) -> Sequence[float]:
    """Give the seconds from when clients were told of a failover until the new primary answered the service.

    Recovery asks every server all the time, so somebody always does; but for the failovers during which a replica of
    the service was itself stalled, dead or starting: these are left out.
    """
    return [
        max(min(answered) - failover.told, 0.0)
        for failover in run.failovers
        if not any(_is_of_replica(fault) and _overlap(fault, failover) for fault in run.diary)
        and (answered := [at for at, server in run.served if server == failover.server and at >= failover.promoted])
    ]


def _is_of_replica(fault: Struck) -> bool:
    return fault.kind.name.startswith("REPLICA")


def _overlap(fault: Struck, failover: StoreFailover) -> bool:
    return fault.began < failover.told + 1 and failover.began < fault.ended
