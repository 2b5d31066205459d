"""Everything that is known after a run: the ledger of the card API, records, moves, responses and logs."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from tests.chaos.load import Customer, RecordedResponse
from tests.chaos.moves import Move
from tests.chaos.plan import ChaosFaultKind, InjectedFault, Plan
from tests.chaos.stores import Record, StoreFailover

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProcessHistory:
    """What is known of one process of the service after the run.

    Attributes:
        name: ``2.5``.
        killed: when it was killed (Unix seconds), or ``None``.
        isolated: whether no other fault was active when it was killed.
        ended: exit status and seconds until the exit, if it was asked to stop.
        lines: the lines of its log.
    """

    name: str
    killed: float | None
    isolated: bool
    ended: tuple[int, float] | None
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence of one run.

    Attributes:
        plan: the plan of the run.
        faults: how many faults of each kind were injected.
        seconds: duration of the run.
        customers: all customers.
        responses: the responses that the clients received.
        records: the records in the store at the end, by challenge id.
        unsettled: number of entries left in the store's index.
        ledger: the entries of the card API's ledger.
        followed_redirects: number of requests that followed a redirect.
        moves: the calls of the replicas to the store.
        processes: the processes of the replicas.
        failures: failures of the run itself, such as a replica that did not start.
        injected: the injected faults with their times and targets.
        failovers: the failovers of the store.
        served: Unix seconds and port of each script response of a server of the store.
    """

    plan: Plan
    faults: Counter[ChaosFaultKind]
    seconds: float
    customers: Sequence[Customer]
    responses: Sequence[RecordedResponse]
    records: Mapping[str, Record]
    unsettled: int
    ledger: Sequence[Mapping[str, Any]]
    followed_redirects: int
    moves: Sequence[Move]
    processes: Sequence[ProcessHistory]
    failures: Sequence[str] = ()
    injected: Sequence[InjectedFault] = ()
    failovers: Sequence[StoreFailover] = ()
    served: Sequence[tuple[float, int]] = ()

    @cached_property
    def id_for_message(self) -> dict[str, str]:
        """Challenge id by SHA-256 of the message."""
        return {record["message_hash"]: name for name, record in self.records.items()}

    @cached_property
    def deliveries(self) -> dict[str, list[Mapping[str, Any]]]:
        """Ledger entries by challenge id; those without a record are under the empty id."""
        found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in self.ledger:
            found[self.id_for_message.get(str(entry["challengeSha256"]), "")].append(entry)
        return dict(found)

    @cached_property
    def responses_by_record(self) -> dict[str, list[RecordedResponse]]:
        """Responses that contain a record, by challenge id."""
        found: defaultdict[str, list[RecordedResponse]] = defaultdict(list)
        for response in self.responses:
            if response.is_record:
                found[response.body["id"]].append(response)
        return dict(found)

    @cached_property
    def moves_by_challenge(self) -> dict[str, list[Move]]:
        """Moves by challenge id, ordered by the store's clock."""
        found: defaultdict[str, list[Move]] = defaultdict(list)
        for move in sorted(self.moves, key=lambda move: move.at):
            found[move.challenge_id].append(move)
        return dict(found)

    @cached_property
    def posts_by_challenge(self) -> dict[str, list[tuple[float, str]]]:
        """Start (Unix seconds) and process of each POST that was sent, by challenge id."""
        found: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        for name, line in self.lines():
            if line["event"] == "challenge.delivered":
                found[line["challenge_id"]].append((_unix(line["timestamp"]) - line["duration_ms"] / 1000, name))
        return dict(found)

    @cached_property
    def verified_customers(self) -> frozenset[str]:
        """Ids of the customers whose signature the card API verified."""
        return frozenset(entry["customerId"] for entry in self.ledger if entry["verified"])

    def lines(self) -> list[tuple[str, Line]]:
        """Return all log lines, each with the name of its process."""
        return [(process.name, line) for process in self.processes for line in process.lines]

    def history(self, challenge_id: str) -> list[str]:
        """Return all events of one challenge in the order of time, as text."""
        timeline: list[tuple[float, str]] = []
        for move in self.moves_by_challenge.get(challenge_id, ()):
            fencing_token = f" fencing token {move.fencing_token}" if move.fencing_token is not None else ""
            after = f"{move.state} fencing token {move.fencing_token_after} signature {_short(move.signature)}"
            where = f" at {move.server}{'' if move.confirmed else ', unconfirmed'}" if self.failovers else ""
            timeline.append(
                (move.at, f"store   {move.process:5} {move.script}{fencing_token} → {move.outcome}: {after}{where}")
            )
        for entry in self.deliveries.get(challenge_id, ()):
            what = f"{entry['status']} {entry['code'] or ''} {entry['fate']}{' verified' if entry['verified'] else ''}"
            keys = f"key {entry['idempotencyKey']} signature {_short(entry['signatureSha256'])}"
            timeline.append((entry["at"], f"API           {what} {keys}"))
        last = ""
        for response in self.responses_by_record.get(challenge_id, ()):
            what = f"{response.sent}: {response.status} {response.body['state']} {response.code or ''}"
            if what != last:  # polling returns the same result many times
                timeline.append((response.began + response.took, f"client  {response.process:5} {what}"))
            last = what
        for name, line in self.lines():
            if line.get("challenge_id") == challenge_id and line["event"] != "http.request":
                kept = ("state", "code", "attempt", "status", "idempotency_key")
                what = " ".join(str(line[key]) for key in kept if line.get(key) is not None)
                timeline.append((_unix(line["timestamp"]), f"log     {name:5} {line['event']} {what}"))
        began, ended = min((at for at, _ in timeline), default=0.0), max((at for at, _ in timeline), default=0.0)
        timeline += [
            (fault.began, str(fault)) for fault in self.injected if fault.began <= ended and began <= fault.ended
        ]
        for failover in self.failovers:
            if began <= failover.announced and failover.began <= ended:
                timeline.append((failover.promoted, f"store         {failover.server} is primary"))
        record = self.records.get(challenge_id, {})
        shown = {key: value for key, value in record.items() if key not in {"submission", "signature", "token"}}
        return [f"{at - began:8.3f}  {text}" for at, text in sorted(timeline)] + [f"          record: {shown}"]


def signature_hash(signature: str) -> str:
    """Return the SHA-256 of a signature, as in the card API's ledger."""
    return hashlib.sha256(signature.encode()).hexdigest()


def _short(digest: object) -> str:
    return str(digest)[:8] if digest else "-"


def _unix(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
