"""When an outage is reported, and how often."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.outage import CHANGED_AFTER, CONFIRMED_AFTER, REPEATED_EVERY, Outage


class Report(list[tuple[str, str, float | None]]):
    """The reports so far: up or down, the cause, and how long it lasted."""

    def down(self, cause: str, reason: str, lasted: timedelta | None) -> None:
        """Keep a report."""
        assert reason == f"It is {cause}."
        self.append(("down", cause, None if lasted is None else lasted.total_seconds()))

    def up(self, cause: str, reason: str, lasted: timedelta) -> None:
        """Keep a report."""
        assert reason == f"It is {cause}."
        self.append(("up", cause, lasted.total_seconds()))


class Part:
    """An outage whose clock a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reports = Report()
        self.outage = Outage(self.reports, monotonic=lambda: self.now)

    def fail(self, cause: str = "timeout", *, after: float = 0.0, is_certain: bool = False) -> None:
        """Let time pass and a call fail."""
        self.now += after
        self.outage.failed(cause, f"It is {cause}.", is_certain=is_certain)


@pytest.fixture
def part() -> Part:
    """A part that works."""
    return Part()


def test_failure_that_is_followed_by_a_success_is_not_reported(part: Part) -> None:
    """However many there are."""
    for _ in range(100):
        part.fail(after=CONFIRMED_AFTER)
        part.outage.succeeded()
    assert part.reports == []
    assert not part.outage.is_failing


def test_part_is_down_after_failing_for_some_time_and_up_after_one_success(part: Part) -> None:
    """``down`` has no duration, ``up`` has it since the first failure."""
    part.fail()
    part.fail(after=CONFIRMED_AFTER - 0.1)
    assert part.reports == []
    part.fail(after=0.1)
    assert part.outage.is_down
    part.now += 5
    part.outage.succeeded()
    part.outage.succeeded()
    assert part.reports == [("down", "timeout", None), ("up", "timeout", CONFIRMED_AFTER + 5)]


def test_certain_failure_is_reported_at_once(part: Part) -> None:
    """The circuit breaker has opened."""
    part.fail(is_certain=True)
    assert part.reports == [("down", "timeout", None)]


def test_outage_is_repeated_every_minute_without_calls(part: Part) -> None:
    """With the duration."""
    part.fail(is_certain=True)
    for _ in range(130):
        part.now += 1
        part.outage.remind()
    assert part.reports == [("down", "timeout", None), ("down", "timeout", 60.0), ("down", "timeout", 120.0)]


def test_new_cause_is_reported_before_a_minute_has_passed(part: Part) -> None:
    """A server that comes back may be loading its data. Two causes that alternate write few lines."""
    part.fail("unreachable", is_certain=True)
    part.fail("loading", after=1)
    assert len(part.reports) == 1
    part.fail("loading", after=CHANGED_AFTER - 1)
    assert part.reports[1:] == [("down", "loading", CHANGED_AFTER)]
    part.fail("loading", after=CHANGED_AFTER)
    assert len(part.reports) == 2


def test_part_that_never_failed_reports_nothing(part: Part) -> None:
    """Neither a success nor the passing of time is an event."""
    part.outage.succeeded()
    part.now += REPEATED_EVERY
    part.outage.remind()
    assert part.reports == []


def test_outage_without_listener_is_only_remembered() -> None:
    """No report is made."""
    outage = Outage(None, monotonic=lambda: 100.0)
    outage.failed("timeout", "It is timeout.", is_certain=True)
    assert outage.is_down
    outage.succeeded()
    assert not outage.is_down
