"""The figures of a run, as a table for a terminal or for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from signer.domain.lifecycle import ChallengeState
from tests.chaos.evidence import Evidence
from tests.chaos.failovers import first_answers, forgotten_ends
from tests.chaos.plan import SINGLE, FaultKind
from tests.chaos.recovery import recoveries
from tests.chaos.verdict import Violation


def figures(run: Evidence, found: Sequence[Violation]) -> dict[str, str]:
    """Give one run's figures in the order of the table's rows."""
    saved = recoveries(run)
    alone = [recovery.seconds for recovery in saved if recovery.alone and recovery.seconds is not None]
    others = [recovery.seconds for recovery in saved if not recovery.alone and recovery.seconds is not None]
    states = Counter(record["state"] for record in run.records.values())
    lines = Counter(line["event"] for _, line in run.lines())
    worst = max((answer.took for answer in run.answers if not answer.hindered and answer.status), default=0.0)
    repeated = Counter((move.challenge_id, move.token) for move in run.moves)
    rows = {
        "seed": str(run.plan.seed),
        "store": run.plan.store,
        "customers": str(len(run.customers)),
        "challenges recorded": str(len(run.records)),
        "requests of their clients": str(len(run.answers)),
        **{f"ended as {state}": str(states[state]) for state in ChallengeState if state.is_final},
        "faults": str(run.faults.total()),
        "processes killed": str(sum(life.killed is not None for life in run.lives)),
        "moves in the store": str(len(run.moves)),
        "moves repeated after a lost answer": str(sum(times - 1 for times in repeated.values())),
        "moves refused to an old holder": str(sum(move.outcome == "lease_lost" for move in run.moves)),
        "deliveries to the card API": str(len(run.ledger)),
        "recoveries (challenge.taken_over)": str(lines["challenge.taken_over"]),
        "signatures whose holder was killed": str(len(saved)),
        "worst recovery, nothing else wrong (lease + 1 s allowed)": _worst(alone),
        "worst recovery, other faults meanwhile": _worst(others),
        "longest answer of a replica that ran": f"{worst:.2f} s",
        "lease": f"{run.plan.lease:g} s",
        "took": f"{run.seconds:.0f} s",
        "violations": str(len(found)),
    }
    return rows if run.plan.store == SINGLE else _with_failovers(rows, run)


def _with_failovers(rows: dict[str, str], run: Evidence) -> dict[str, str]:
    """Put what only a store with replicas has before the last rows."""
    named = [failover.told - failover.began for failover in run.failovers]
    more = {
        "failovers of the store": str(len(run.failovers)),
        "worst time until the store told of one": _worst(named),
        "worst time from then until it answered the service": _worst(first_answers(run)),
        "moves not confirmed by replicas, and not acted upon": str(sum(not move.confirmed for move in run.moves)),
        "ends that a failover forgot, found again": str(len(forgotten_ends(run))),
    }
    last = ("lease", "took", "violations")
    return (
        {name: value for name, value in rows.items() if name not in last} | more | {name: rows[name] for name in last}
    )


def _worst(seconds: Sequence[float]) -> str:
    return f"{max(seconds):.2f} s (of {len(seconds)})" if seconds else "none"


def as_text(run: Evidence, found: Sequence[Violation]) -> str:
    """Word one run for a terminal."""
    rows = figures(run, found)
    faults = {f"  {kind}": str(run.faults[kind]) for kind in FaultKind if run.faults[kind]}
    width = max(map(len, (*rows, *faults)))
    lines = []
    for name, value in rows.items():
        lines.append(f"{name:{width}}  {value}")
        if name == "faults":
            lines += [f"{kind:{width}}  {count}" for kind, count in faults.items()]
    return "\n".join(lines)


def as_markdown(runs: Sequence[tuple[Evidence, Sequence[Violation]]]) -> str:
    """Word several runs for a page: a column each, and one table of the faults of all."""
    columns = [figures(run, found) for run, found in runs]
    first, *rest = columns[0]
    lines = [_row(first, [column[first] for column in columns]), _row("---", ["---:"] * len(columns))]
    lines += [_row(name, [column[name] for column in columns]) for name in rest]
    struck = sum((run.faults for run, _ in runs), Counter[FaultKind]())
    lines += ["", _row("fault", ["times, in all"]), _row("---", ["---:"])]
    lines += [_row(kind, [str(struck[kind])]) for kind in FaultKind if struck[kind]]
    return "\n".join(lines)


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def as_findings(run: Evidence, found: Sequence[Violation], most: int = 10) -> str:
    """Explain the violations: each rule's, the first few with the challenge's whole history."""
    lines: list[str] = []
    shown: Counter[str] = Counter()
    for violation in found:
        shown[violation.rule] += 1
        if shown[violation.rule] > most:
            continue
        lines.append(f"VIOLATION {violation.rule}: {violation.challenge_id or ''} {violation.what}")
        if violation.challenge_id is not None and shown[violation.rule] <= most // 3:
            lines += [f"    {line}" for line in run.history(violation.challenge_id)]
    lines += [f"{rule}: {count} in all" for rule, count in shown.items()]
    return "\n".join(lines)
