"""What a check has found, and the report of one part.

* A part has a list of checks, from outside in. It stops at the first one without which the others cannot work: they are
  shown as skipped, with the reason. A part that hangs, or has a bug, hides no other part.
* No text shows a secret.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from signer.adapters.card_api.upstream_clock import LONGEST_BACKDATE, TOLERATED_SKEW
from signer.config.settings import Settings

PART_WITHIN: Final = timedelta(seconds=9)
"""Of each part; all run at once, so the whole command needs little more."""

OWN_CAUSES: Final = frozenset(
    {"clock", "configuration", "duplicate", "limits", "log", "missing", "not_ready", "taken", "unreadable"}
)
"""The causes of findings besides those of the events ``… .down``; docs/operations.md explains them."""
_END_WITHIN: Final = 0.5
_SHOWN: Final = 3
_END_OF_FACT: Final = re.compile(r"[:;.] ")
"""Error texts say what happened, then what to do."""
_BEGINS_WITH_SETTING: Final = re.compile(r"[a-z_]+\.[a-z_]")


class Result(StrEnum):
    """The result of one check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table.

    Attributes:
        part, check, result: stable names.
        found: what the check has found.
        action: what to do about it; empty if nothing.
        cause: one stable word for why it failed; empty if it did not, or if a warning has none.
    """

    part: str
    check: str
    result: Result
    found: str
    action: str = ""
    cause: str = ""


class Report:
    """The findings of one part.

    Attributes:
        hangs: whether a thread may still be waiting for something.
    """

    def __init__(self, part: str, checks: Sequence[str]) -> None:
        self.findings: list[Finding] = []
        self.hangs = False
        self._part = part
        self._checks = checks

    def ok(self, check: str, found: str) -> None:
        """Add that a check passed."""
        self._add(check, Result.OK, found)

    def warning(self, check: str, found: str, action: str) -> None:
        """Add that the service works, and something is to be done."""
        self._add(check, Result.WARNING, found, action)

    def failed(self, check: str, found: str, action: str, cause: str) -> None:
        """Add that the service does not work so."""
        self._add(check, Result.FAILED, found, action, cause)

    def skipped(self, check: str, reason: str) -> None:
        """Add that a check could not be made."""
        self._add(check, Result.SKIPPED, reason)

    def says(self, check: str, text: str, cause: str | None, result: Result = Result.FAILED) -> None:
        """Add a text that says what happened, then what to do; without a ``cause`` it is ``error``."""
        ends = (end for end in _END_OF_FACT.finditer(text) if _is_outside_parentheses(text[: end.start()]))
        fact = next(ends, None)
        found, action = (text, "") if fact is None else (text[: fact.start()], text[fact.end() :])
        if _BEGINS_WITH_SETTING.match(action) is None:
            action = action[:1].upper() + action[1:]
        self._add(check, result, found, action, cause or "error")

    def clock(self, check: str, difference: float) -> None:
        """Add by how many seconds another clock is ahead of ours."""
        found = f"{abs(difference):.1f} s {'ahead of' if difference > 0 else 'behind'} ours"
        if abs(difference) <= TOLERATED_SKEW.total_seconds():
            self.ok(check, found)
            return
        result = Result.FAILED if abs(difference) > LONGEST_BACKDATE.total_seconds() else Result.WARNING
        self._add(check, result, found, "Set the clocks of both machines by NTP.", "clock")

    def finish(self, fault: str | None) -> None:
        """Add a finding for each check that has none; ``fault`` is why the part did not end by itself."""
        made = {finding.check for finding in self.findings}
        left = [check for check in self._checks if check not in made]
        if fault is not None and left:
            action = "Run the command again; if it stays so, look at this part by hand."
            self.failed(left.pop(0), fault, action, "timeout" if self.hangs else "error")
        failed = [finding.check for finding in self.findings if finding.result is Result.FAILED]
        for check in left:
            self.skipped(check, f"{failed[-1] if failed else 'an earlier check'} failed")
        places = {check: place for place, check in enumerate(self._checks)}
        self.findings.sort(key=lambda finding: places.get(finding.check, len(places)))

    def _add(self, check: str, result: Result, found: str, action: str = "", cause: str = "") -> None:
        found, action = found.removesuffix("."), action.removesuffix(".")
        self.findings.append(Finding(self._part, check, result, found, action, cause))


def listed(texts: Iterable[object]) -> str:
    """Return the first few of the texts, and how many more there are."""
    shown = list(map(str, texts))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"{'; '.join(shown[:_SHOWN])}{more}"


def _is_outside_parentheses(head: str) -> bool:
    return head.count("(") == head.count(")")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an installation: its checks in order, and what makes them.

    Attributes:
        sections: of the settings, which the checks need.
    """

    name: str
    checks: Sequence[str]
    run: Callable[[Settings, Report], Awaitable[None]]
    within: timedelta = PART_WITHIN
    sections: frozenset[str] = frozenset()

    def without(self, invalid: frozenset[str]) -> Part:
        """Return a part whose checks are all skipped if it needs one of the ``invalid`` sections, else this part."""
        needed = sorted(self.sections & invalid)
        if not needed:
            return self
        reason = f"the settings in [{needed[0]}] are invalid"

        async def skip(_settings: Settings, report: Report) -> None:
            for check in self.checks:
                report.skipped(check, reason)

        return Part(self.name, self.checks, skip)

    async def examine(self, settings: Settings) -> tuple[list[Finding], bool]:
        """Make the checks; return also whether something still hangs."""
        report, fault = Report(self.name, self.checks), None
        task = asyncio.ensure_future(self.run(settings, report))
        done, _ = await asyncio.wait({task}, timeout=self.within.total_seconds())
        if not done:
            report.hangs = True
            fault = f"no result within {self.within.total_seconds():g} s"
            task.cancel()
            await asyncio.wait({task}, timeout=_END_WITHIN)
        elif error := task.exception():
            fault = f"the check itself failed ({type(error).__name__}), which is a bug of this command"
        report.finish(fault)
        return report.findings, report.hangs
