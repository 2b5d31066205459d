"""What failovers of the store did to a run: how soon it went on after each, and what was forgotten and found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.chaos.evidence import Evidence
from tests.chaos.moves import Move
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


def first_moves(run: Evidence) -> Sequence[float]:
    """Give, for each failover, the seconds from when clients were told of it until the new primary's first move.

    That includes the time until somebody asked for one.
    """
    return [
        max(min((move.at for move in run.moves if _is_of(move, failover)), default=failover.told) - failover.told, 0.0)
        for failover in run.failovers
    ]


def _is_of(move: Move, failover: StoreFailover) -> bool:
    return move.server == failover.server and move.at >= failover.promoted
