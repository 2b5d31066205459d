"""The figures of a run as a table, for the terminal or in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from signer.domain.lifecycle import ChallengeState
from tests.chaos.evidence import Evidence
from tests.chaos.failovers import first_response_times, forgotten_final_states
from tests.chaos.plan import SINGLE, ChaosFaultKind
from tests.chaos.recovery import recoveries
from tests.chaos.verdict import Violation


def figures(run: Evidence, found: Sequence[Violation]) -> dict[str, str]:
    """Return one run's figures in the order of the rows."""
    recovered = recoveries(run)
    isolated = [recovery.seconds for recovery in recovered if recovery.isolated and recovery.seconds is not None]
    others = [recovery.seconds for recovery in recovered if not recovery.isolated and recovery.seconds is not None]
    states = Counter(record["state"] for record in run.records.values())
    lines = Counter(line["event"] for _, line in run.lines())
    worst = max(
        (response.took for response in run.responses if not response.unavailable and response.status), default=0.0
    )
    repeated = Counter((move.challenge_id, move.token) for move in run.moves)
    rows = {
        "seed": str(run.plan.seed),
        "store": run.plan.store,
        "customers": str(len(run.customers)),
        "challenges recorded": str(len(run.records)),
        "requests of their clients": str(len(run.responses)),
        **{f"ended as {state}": str(states[state]) for state in ChallengeState if state.is_final},
        "faults": str(run.faults.total()),
        "processes killed": str(sum(process.killed is not None for process in run.processes)),
        "moves in the store": str(len(run.moves)),
        "moves repeated after a lost response": str(sum(times - 1 for times in repeated.values())),
        "moves refused to an old holder": str(sum(move.outcome == "lease_lost" for move in run.moves)),
        "deliveries to the card API": str(len(run.ledger)),
        "recoveries (challenge.taken_over)": str(lines["challenge.taken_over"]),
        "signatures whose holder was killed": str(len(recovered)),
        "worst recovery, nothing else wrong (lease + 1 s allowed)": _longest(isolated),
        "worst recovery, other faults meanwhile": _longest(others),
        "longest response time of a replica that ran": f"{worst:.2f} s",
        "lease": f"{run.plan.lease:g} s",
        "took": f"{run.seconds:.0f} s",
        "violations": str(len(found)),
    }
    return rows if run.plan.store == SINGLE else _with_failovers(rows, run)


def _with_failovers(rows: dict[str, str], run: Evidence) -> dict[str, str]:
    """Insert the rows of a store with replicas before the last rows."""
    named = [failover.announced - failover.began for failover in run.failovers]
    more = {
        "failovers of the store": str(len(run.failovers)),
        "worst time until the store told of one": _longest(named),
        "worst time from then until it responded to the service": _longest(first_response_times(run)),
        "moves not confirmed by replicas, and not acted upon": str(sum(not move.confirmed for move in run.moves)),
        "ends that a failover forgot, found again": str(len(forgotten_final_states(run))),
    }
    last = ("lease", "took", "violations")
    return (
        {name: value for name, value in rows.items() if name not in last} | more | {name: rows[name] for name in last}
    )


def _longest(seconds: Sequence[float]) -> str:
    return f"{max(seconds):.2f} s (of {len(seconds)})" if seconds else "none"


def as_text(run: Evidence, found: Sequence[Violation]) -> str:
    """Return the table of one run as text."""
    rows = figures(run, found)
    faults = {f"  {kind}": str(run.faults[kind]) for kind in ChaosFaultKind if run.faults[kind]}
    width = max(map(len, (*rows, *faults)))
    lines = []
    for name, value in rows.items():
        lines.append(f"{name:{width}}  {value}")
        if name == "faults":
            lines += [f"{kind:{width}}  {count}" for kind, count in faults.items()]
    return "\n".join(lines)


def as_markdown(runs: Sequence[tuple[Evidence, Sequence[Violation]]]) -> str:
    """Return a Markdown table with one column for each run, and a table of all faults."""
    columns = [figures(run, found) for run, found in runs]
    first, *rest = columns[0]
    lines = [_row(first, [column[first] for column in columns]), _row("---", ["---:"] * len(columns))]
    lines += [_row(name, [column[name] for column in columns]) for name in rest]
    struck = sum((run.faults for run, _ in runs), Counter[ChaosFaultKind]())
    lines += ["", _row("fault", ["times, in all"]), _row("---", ["---:"])]
    lines += [_row(kind, [str(struck[kind])]) for kind in ChaosFaultKind if struck[kind]]
    return "\n".join(lines)


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def describe_violations(run: Evidence, found: Sequence[Violation], most: int = 10) -> str:
    """Return the violations as text, by rule; the first ones with the history of the challenge."""
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
