"""All that a run leaves behind, put side by side: the API's ledger, the store's records, moves, answers and logs."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from tests.chaos.load import Answer, Customer
from tests.chaos.moves import Move
from tests.chaos.plan import FaultKind, Plan, Struck
from tests.chaos.stores import Record, StoreFailover

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LifeStory:
    """One process of the service, afterwards.

    Attributes:
        name: ``2.5``.
        killed: when it was killed, or ``None``.
        alone: whether nothing else was wrong then.
        ended: exit status, and the seconds that it took, where it was asked to stop.
        lines: of its log.
    """

    name: str
    killed: float | None
    alone: bool
    ended: tuple[int, float] | None
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One run.

    Attributes:
        plan: what was planned.
        faults: what struck.
        seconds: how long it took.
        customers: who came.
        answers: what their clients were answered.
        records: what the store says at the end, by the challenge's id.
        unsettled: entries left in the store's index.
        ledger: what the card API got, entry by entry.
        elsewhere: how many requests followed a redirect.
        moves: what the replicas did in the store.
        lives: the replicas' processes.
        failures: of the run itself: replicas that did not start, or end.
        diary: the faults, each with when and whom.
        failovers: the store's own.
        served: when a server of the store answered a script, Unix seconds, and its port.
    """

    plan: Plan
    faults: Counter[FaultKind]
    seconds: float
    customers: Sequence[Customer]
    answers: Sequence[Answer]
    records: Mapping[str, Record]
    unsettled: int
    ledger: Sequence[Mapping[str, Any]]
    elsewhere: int
    moves: Sequence[Move]
    lives: Sequence[LifeStory]
    failures: Sequence[str] = ()
    diary: Sequence[Struck] = ()
    failovers: Sequence[StoreFailover] = ()
    served: Sequence[tuple[float, int]] = ()

    @cached_property
    def id_for_message(self) -> dict[str, str]:
        """The challenge's id by the SHA-256 of its message."""
        return {record["message_hash"]: name for name, record in self.records.items()}

    @cached_property
    def deliveries(self) -> dict[str, list[Mapping[str, Any]]]:
        """The ledger's entries by the challenge's id; those of no recorded challenge are under the empty one."""
        found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in self.ledger:
            found[self.id_for_message.get(str(entry["challengeSha256"]), "")].append(entry)
        return dict(found)

    @cached_property
    def records_answered(self) -> dict[str, list[Answer]]:
        """The answers that hold a record, by its id."""
        found: defaultdict[str, list[Answer]] = defaultdict(list)
        for answer in self.answers:
            if answer.is_record:
                found[answer.body["id"]].append(answer)
        return dict(found)

    @cached_property
    def moves_of(self) -> dict[str, list[Move]]:
        """The moves by the challenge's id, by the store's clock."""
        found: defaultdict[str, list[Move]] = defaultdict(list)
        for move in sorted(self.moves, key=lambda move: move.at):
            found[move.challenge_id].append(move)
        return dict(found)

    @cached_property
    def posts_of(self) -> dict[str, list[tuple[float, str]]]:
        """When the POSTs of each challenge that left a replica were begun, Unix seconds, and which life did so."""
        found: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        for name, line in self.lines():
            held_off = line.get("code") == "not_processed" and line.get("status") is None
            if line["event"] == "challenge.delivered" and not held_off:
                found[line["challenge_id"]].append((_unix(line["timestamp"]) - line["duration_ms"] / 1000, name))
        return dict(found)

    @cached_property
    def verified_customers(self) -> frozenset[str]:
        """Those whose proof the card API accepted."""
        return frozenset(entry["customerId"] for entry in self.ledger if entry["verified"])

    def lines(self) -> list[tuple[str, Line]]:
        """Every line of every log, with the name of the life that wrote it."""
        return [(life.name, line) for life in self.lives for line in life.lines]

    def history(self, challenge_id: str) -> list[str]:
        """Tell all that is known of one challenge, in the order in which it happened."""
        told: list[tuple[float, str]] = []
        for move in self.moves_of.get(challenge_id, ()):
            fence = f" fence {move.fence}" if move.fence is not None else ""
            after = f"{move.state} fence {move.fence_after} signature {_short(move.signature)}"
            where = f" at {move.server}{'' if move.confirmed else ', unconfirmed'}" if self.failovers else ""
            told.append((move.at, f"store   {move.process:5} {move.script}{fence} → {move.outcome}: {after}{where}"))
        for entry in self.deliveries.get(challenge_id, ()):
            what = f"{entry['status']} {entry['code'] or ''} {entry['fate']}{' verified' if entry['verified'] else ''}"
            keys = f"key {entry['idempotencyKey']} signature {_short(entry['signatureSha256'])}"
            told.append((entry["at"], f"API           {what} {keys}"))
        last = ""
        for answer in self.records_answered.get(challenge_id, ()):
            what = f"{answer.sent}: {answer.status} {answer.body['state']} {answer.code or ''}"
            if what != last:  # who polls hears the same thing again and again
                told.append((answer.began + answer.took, f"client  {answer.life:5} {what}"))
            last = what
        for name, line in self.lines():
            if line.get("challenge_id") == challenge_id and line["event"] != "http.request":
                kept = ("state", "code", "attempt", "status", "idempotency_key")
                what = " ".join(str(line[key]) for key in kept if line.get(key) is not None)
                told.append((_unix(line["timestamp"]), f"log     {name:5} {line['event']} {what}"))
        began, ended = min((at for at, _ in told), default=0.0), max((at for at, _ in told), default=0.0)
        told += [(fault.began, str(fault)) for fault in self.diary if fault.began <= ended and began <= fault.ended]
        for failover in self.failovers:
            if began <= failover.told and failover.began <= ended:
                told.append((failover.promoted, f"store         {failover.server} is primary"))
        record = self.records.get(challenge_id, {})
        shown = {key: value for key, value in record.items() if key not in {"submission", "signature", "token"}}
        return [f"{at - began:8.3f}  {text}" for at, text in sorted(told)] + [f"          record: {shown}"]


def signature_hash(signature: str) -> str:
    """Name a signature as the card API's ledger does."""
    return hashlib.sha256(signature.encode()).hexdigest()


def _short(digest: object) -> str:
    return str(digest)[:8] if digest else "-"


def _unix(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
