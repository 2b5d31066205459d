"""How long what a dead replica held took to be delivered by another one, read off the moves and the logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.chaos.evidence import Evidence, LifeStory
from tests.chaos.moves import Move

_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Recovery:
    """One signature whose holder died.

    Attributes:
        challenge_id: of it.
        life: that held it.
        alone: whether nothing else was wrong: no other fault, and no failure that the card API repeats for an old one.
        seconds: from the death until another begins to POST it, or takes it over where it may not be delivered any more
            and is only asked about; ``None`` where there was neither. How long the card API then takes to answer is
            its own affair.
    """

    challenge_id: str
    life: str
    alone: bool
    seconds: float | None


def recoveries(run: Evidence) -> list[Recovery]:
    """Name every signature that was being delivered by a replica when it was killed."""
    found: list[Recovery] = []
    failed = [entry["at"] for entry in run.ledger if entry["status"] is None or entry["status"] >= _SERVER_ERROR]
    for life in run.lives:
        if life.killed is None:
            continue
        window = life.killed - 1, life.killed + run.plan.lease + 1
        alone = life.alone and not any(window[0] < at < window[1] for at in failed)
        for name, moves in run.moves_of.items():
            # What the dead one had asked for just before may have been done just after.
            before = [m for m in moves if not m.is_refused and (m.at <= life.killed or m.process == life.name)]
            if before and _was_delivering(before[-1], life):
                found.append(Recovery(name, life.name, alone, _seconds_until_delivery(run, moves, life)))
    return found


def _was_delivering(last: Move, life: LifeStory) -> bool:
    held = last.process == life.name and last.grants_lease and last.confirmed and last.state == "forwarding"
    return held and life.killed is not None and last.leased_until > life.killed


def _seconds_until_delivery(run: Evidence, moves: list[Move], life: LifeStory) -> float | None:
    assert life.killed is not None
    name = moves[0].challenge_id
    begun = [at for at, process in run.posts_of.get(name, ()) if process != life.name]
    others = [move for move in moves if move.process != life.name and not move.is_refused]
    # Without a POST, past its deadline.
    ended = [move.at for move in others if move.script == "settle" or (move.grants_lease and move.outcome == "overdue")]
    return min((at - life.killed for at in (*begun, *ended) if at > life.killed), default=None)
