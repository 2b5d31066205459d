"""The course of one outage: a part is broken, the outage is named, the part is repaired, the outage ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from signer.domain.ethereum import AccountId
from tests.e2e.outages.site import Line, OutageSite, moment_of

NAMED_WITHIN: Final = 15.0
_PATIENCE: Final = 30.0
_POLL_SECONDS: Final = 0.1
_CALL_EVERY: Final = 0.3
_CALLERS: Final = 12
_LOUD: Final = frozenset({"warning", "error", "critical"})

Step = Callable[[OutageSite], Awaitable[object] | object]


@dataclass(frozen=True, slots=True)
class Outage:
    """One row of the table.

    Attributes:
        name: of the failure.
        begin: causes it; it may return when it began to have an effect, in Unix seconds.
        end: repairs it.
        down: the event that names it.
        cause: the event's cause; or words of its reason, if it has no cause.
        check: the check of ``/readyz`` that names it; empty if no process is left that could respond.
        code: the check's error code; or words of its detail, if it does not make the replica unready.
        doctor: the check of ``signer doctor`` that does not pass.
        up: the event at its end.
        owner: whose challenges are signed meanwhile; by default the site's.
        call_every: the seconds between two requests of callers.
        is_log_readable: whether the log can be read before the repair; if not, the outage lasts ``NAMED_WITHIN``.
    """

    name: str
    begin: Step
    end: Step
    down: str
    cause: str
    check: str
    code: str
    doctor: str
    up: str
    owner: Callable[[OutageSite], AccountId] | None = None
    call_every: float = _CALL_EVERY
    is_log_readable: bool = True


@dataclass(slots=True)
class Course:
    """What the service wrote and responded.

    Attributes:
        began: Unix seconds.
        repaired: Unix seconds.
        down: the lines of the event that names it.
        named_by_check: when the check named it, by the service's clock.
        findings: the doctor's, by ``part.check``.
        up: the lines of the event at the end.
        is_ready: whether the replica was ready at the end.
        loud: all lines at warning or above.
    """

    began: float = 0.0
    repaired: float = 0.0
    down: list[Line] = field(default_factory=list)
    named_by_check: float | None = None
    last_checks: list[Line] = field(default_factory=list)
    findings: dict[str, str] = field(default_factory=dict)
    up: list[Line] = field(default_factory=list)
    is_ready: bool = False
    loud: list[Line] = field(default_factory=list)

    def problems(self, outage: Outage) -> list[str]:
        """Return what is wrong with how the outage was named."""
        found: list[str] = []
        named = [line for line in self.down if _has_cause(line, outage)]
        if not named:
            found.append(f"no {outage.down} with the cause {outage.cause}; the log has {self._shown()}")
        else:
            seconds = moment_of(named[0]) - self.began
            if seconds > NAMED_WITHIN:
                found.append(f"{outage.down} came after {seconds:.1f} s")
            if outage.cause and not named[0].get("reason"):
                found.append(f"{outage.down} has no reason")
        if len(self.down) > 2:
            found.append(f"{len(self.down)} lines of {outage.down}: {self._shown()}")
        if outage.check and self.named_by_check is None:
            found.append(f"/readyz has no check {outage.check} with {outage.code!r}; it has {self.last_checks}")
        elif (self.named_by_check or 0) - self.began > NAMED_WITHIN:
            found.append("/readyz named it after too late")
        finding, has_cause = self.findings.get(outage.doctor, ""), bool(named and "cause" in named[0])
        wanted = (f"failed {outage.cause}:", "warning") if has_cause else ("failed", "warning")
        if not finding.startswith(wanted):
            found.append(f"the doctor says {self.findings.get(outage.doctor)!r} of {outage.doctor}: {self.findings}")
        return found

    def problems_at_end(self, outage: Outage) -> list[str]:
        """Return what is wrong with how the end was told."""
        found = [] if len(self.up) == 1 else [f"{len(self.up)} lines of {outage.up}"]
        durations = [(line.get("duration_ms", 0), (moment_of(line) - self.began) * 1000) for line in self.up]
        found += [f"{outage.up} has the duration {told}" for told, most in durations if not 0 < told <= most + 1]
        if not self.is_ready:
            found.append(f"the replica is not ready: {self.last_checks}")
        return found

    def _shown(self) -> list[tuple[object, ...]]:
        return [(line["event"], line.get("cause"), line.get("reason"), line.get("code")) for line in self.loud]


async def run(site: OutageSite, outage: Outage) -> Course:
    """Break the site, wait until that is named, repair it, and wait until its end is told."""
    customers = await site.create_customers(_CALLERS, outage.owner(site) if outage.owner else None)
    await _poll(partial(_is_calm, site, outage))
    skipped = len(site.read_lines())
    course = Course(began=time.time())
    began = await _step(outage.begin, site)
    if isinstance(began, float):
        course.began = began
    tasks: list[asyncio.Task[Any]] = []
    try:
        if outage.check:
            tasks.append(asyncio.create_task(site.call(customers, outage.call_every)))
        named = partial(_poll, partial(_is_named, site, outage, course, skipped))
        if outage.is_log_readable:
            tasks.append(doctor := asyncio.create_task(site.doctor()))
            await named()
            course.findings = await doctor
        else:  # the doctor asks the service about its log
            await named()
            course.findings = await site.doctor()
            await asyncio.sleep(course.began + NAMED_WITHIN - time.time())
        course.repaired = time.time()
        await _step(outage.end, site)
        await _poll(partial(_has_ended, site, outage, course, skipped))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    course.loud = [line for line in site.read_lines()[skipped:] if line["level"] in _LOUD]
    course.down = [line for line in course.loud if line["event"] == outage.down]
    return course


async def _poll(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds, but not for ever: what is missing then is reported."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while not await condition():  # noqa: ASYNC110 - other processes send no signal
                await asyncio.sleep(_POLL_SECONDS)


async def _is_calm(site: OutageSite, outage: Outage) -> bool:
    """Return whether the replica is ready, and its report, which it reuses, does not still name the last outage."""
    status, checks, _ = await site.readiness()
    return status == HTTPStatus.OK and not any(_names(check, outage) for check in checks)


async def _step(step: Step, site: OutageSite) -> object:
    result = step(site)
    return await result if isinstance(result, Awaitable) else result


async def _is_named(site: OutageSite, outage: Outage, course: Course, skipped: int) -> bool:
    if outage.check and course.named_by_check is None:
        _, course.last_checks, moment = await site.readiness()
        check = next(each for each in course.last_checks if each["name"] == outage.check)
        if _names(check, outage):
            course.named_by_check = moment
    lines = site.read_lines()[skipped:] if outage.is_log_readable else []
    is_logged = not outage.is_log_readable or any(_has_cause(line, outage) for line in lines)
    return is_logged and (course.named_by_check is not None or not outage.check)


def _names(check: Line, outage: Outage) -> bool:
    is_named = check.get("code") == outage.code or outage.code in check.get("detail", "")
    return check["name"] == outage.check and is_named


def _has_cause(line: Line, outage: Outage) -> bool:
    told = line["cause"] == outage.cause if "cause" in line else outage.cause in line.get("reason", "")
    return line["event"] == outage.down and told


async def _has_ended(site: OutageSite, outage: Outage, course: Course, skipped: int) -> bool:
    status, course.last_checks, _ = await site.readiness()
    lines = [line for line in site.read_lines()[skipped:] if moment_of(line) >= course.repaired]
    course.up = [line for line in lines if line["event"] == outage.up]
    course.is_ready = status == HTTPStatus.OK
    return bool(course.up) and course.is_ready
