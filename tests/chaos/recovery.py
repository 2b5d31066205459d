"""Measures how long it took until another replica delivered what a killed one held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.chaos.evidence import Evidence, ProcessHistory
from tests.chaos.moves import Move

_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class MeasuredRecovery:
    """One signature whose lease holder was killed.

    Attributes:
        challenge_id: its challenge.
        process: the lease holder.
        isolated: whether no other fault was active, and the card API replayed no earlier failure.
        seconds: from the kill until another process starts its POST, or takes over a signature that may no longer be
            delivered; ``None`` if neither happened. The response time of the card API is not included.
    """

    challenge_id: str
    process: str
    isolated: bool
    seconds: float | None


def recoveries(run: Evidence) -> list[MeasuredRecovery]:
    """Return the signatures that a replica was delivering when it was killed."""
    found: list[MeasuredRecovery] = []
    failed = [entry["at"] for entry in run.ledger if entry["status"] is None or entry["status"] >= _SERVER_ERROR]
    for process in run.processes:
        if process.killed is None:
            continue
        window = process.killed - 1, process.killed + run.plan.lease + 1
        isolated = process.isolated and not any(window[0] < at < window[1] for at in failed)
        for name, moves in run.moves_by_challenge.items():
            # The store may execute a call of the killed process shortly after the kill.
            before = [m for m in moves if not m.is_refused and (m.at <= process.killed or m.process == process.name)]
            if before and _was_delivering(before[-1], process):
                found.append(
                    MeasuredRecovery(name, process.name, isolated, _seconds_until_delivery(run, moves, process))
                )
    return found


def _was_delivering(last: Move, process: ProcessHistory) -> bool:
    held = last.process == process.name and last.grants_lease and last.confirmed and last.state == "forwarding"
    return held and process.killed is not None and last.leased_until > process.killed


def _seconds_until_delivery(run: Evidence, moves: list[Move], process: ProcessHistory) -> float | None:
    assert process.killed is not None
    name = moves[0].challenge_id
    begun = [at for at, poster in run.posts_by_challenge.get(name, ()) if poster != process.name]
    others = [move for move in moves if move.process != process.name and not move.is_refused]
    # Past its deadline a challenge is settled without a POST.
    ended = [move.at for move in others if move.script == "settle" or (move.grants_lease and move.outcome == "overdue")]
    return min((at - process.killed for at in (*begun, *ended) if at > process.killed), default=None)
