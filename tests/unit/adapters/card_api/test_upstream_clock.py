from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.adapters.card_api.upstream_clock import UpstreamClock
from tests.support.fakes.clock import FakeClock

NOW = datetime(2026, 11, 22, 12, 0, 0, 500_000, tzinfo=UTC)
NO_TIME = timedelta(0)


class Bench:
    """An ``UpstreamClock``, our clock, and the events that its listener got."""

    def __init__(self) -> None:
        self.ours = FakeClock(NOW)
        self.events: list[tuple[str, int]] = []
        self.clock = UpstreamClock(self.ours, listener=self)

    def clock_skewed(self, skew: timedelta) -> None:
        """Record the event."""
        self.events.append(("skewed", round(skew.total_seconds())))

    def clock_agreed(self, skew: timedelta) -> None:
        """Record the event."""
        self.events.append(("agreed", round(skew.total_seconds())))

    def respond(self, ahead: float, took: timedelta = NO_TIME) -> None:
        """Let a response arrive whose sender's clock is so many seconds ahead."""
        sent_at = self.ours.now()
        self.ours.advance(took)
        dated = sent_at + took / 2 + timedelta(seconds=ahead)
        self.clock.observe(format_datetime(dated, usegmt=True), sent_at)

    def backdated(self) -> int:
        """Return by how many seconds ``created`` is back-dated."""
        return int(self.ours.now().timestamp()) - self.clock.seconds_for_created()


@pytest.fixture
def bench() -> Bench:
    """A clock that has observed nothing yet."""
    return Bench()


def test_our_clock_is_used_before_first_response(bench: Bench) -> None:
    """No skew, no event, no back-dating."""
    assert (bench.clock.skew, bench.clock.is_skewed, bench.backdated()) == (None, False, 0)
    assert bench.clock.now() == NOW


@pytest.mark.parametrize(
    ("ahead", "backdated"),
    [(0, 0), (-0.4, 0), (-1.5, 2), (-20, 20), (-60, 60), (-61, 60), (-299, 60), (1, 0), (299, 0), (86_400, 0)],
)
def test_created_is_backdated_if_card_api_is_behind(bench: Bench, ahead: float, backdated: int) -> None:
    """By the difference, in whole seconds, up to the limit; never post-dated, and not for less than a second."""
    bench.respond(ahead)
    assert bench.backdated() == pytest.approx(backdated, abs=1 if backdated not in {0, 60} else 0)


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Sun, 22 Nov 2026 14:00:00 GMT",
        "Sun, 22 Nov 2026 11:50:00 GMT",
    ],
)
@pytest.mark.parametrize("before", [0, -20])
def test_skew_of_more_than_five_minutes_is_reported_and_not_used(bench: Bench, before: float, date: str) -> None:
    """One broken ``Date`` must not make later arithmetic overflow, nor change ``created``: the last skew stays."""
    bench.respond(before)
    bench.events.clear()
    bench.clock.is_skewed = False
    bench.clock.observe(date, bench.ours.now())
    assert (bench.clock.is_skewed, bench.backdated()) == (True, -before)
    assert [name for name, _ in bench.events] == ["skewed"]
    bench.respond(0)
    assert [name for name, _ in bench.events] == ["skewed", "agreed"]


@given(behind=st.floats(0, 60), fraction=st.floats(0, 0.999))
def test_created_is_not_in_card_apis_future(behind: float, fraction: float) -> None:
    """With the default ``backdate`` of two seconds on top, whatever fraction ``Date`` has cut off."""
    bench = Bench()
    bench.ours.advance(timedelta(seconds=fraction))
    bench.respond(-behind)
    upstream = bench.ours.now().timestamp() - behind
    assert bench.clock.seconds_for_created() - 2 <= upstream


def test_skew_is_reported_once_and_its_end_once(bench: Bench) -> None:
    """A lasting skew, or one that oscillates around the threshold, does not fill the log."""
    for ahead in (4, -4, 0):
        bench.respond(ahead)
        bench.ours.advance(timedelta(seconds=2))
    assert bench.events == []
    for ahead in (20, 21, 4, 6, 4, -30):
        bench.respond(ahead)
        assert bench.clock.is_skewed
        bench.ours.advance(timedelta(seconds=2))
    assert bench.events == [("skewed", 20)]
    bench.respond(1)
    assert not bench.clock.is_skewed
    bench.ours.advance(timedelta(seconds=2))
    bench.respond(-7)
    assert bench.events == [("skewed", 20), ("agreed", 1), ("skewed", -7)]


def test_clock_works_without_listener() -> None:
    """The listener is optional."""
    clock = UpstreamClock(FakeClock(NOW))
    for date in ("Sun, 22 Nov 2026 13:00:00 GMT", "Sun, 22 Nov 2026 12:00:00 GMT"):
        clock.observe(date, NOW)
    assert not clock.is_skewed


def test_slow_response_does_not_replace_observation(bench: Bench) -> None:
    """When during a long request the card API read its clock is not known."""
    bench.respond(0)
    bench.respond(-4, took=timedelta(seconds=8))
    assert bench.backdated() == 0
    bench.respond(-4)
    assert bench.backdated() == pytest.approx(4, abs=1)


def test_slow_response_is_used_if_it_is_the_first(bench: Bench) -> None:
    """An inexact observation is better than none."""
    bench.respond(-20, took=timedelta(seconds=8))
    assert bench.backdated() == pytest.approx(20, abs=5)


def test_response_before_its_request_is_ignored(bench: Bench) -> None:
    """Our own clock was set back in between: the next response is used."""
    bench.respond(0)
    bench.respond(0, took=timedelta(seconds=-30))
    assert bench.events == []
    bench.respond(0)
    assert bench.backdated() == 0


@pytest.mark.parametrize("date", [None, "", "today", "Sun, 22 Nov 2026 12:00:00 -0000"])
def test_malformed_date_is_ignored(bench: Bench, date: str | None) -> None:
    """The known skew stays."""
    bench.clock.observe(date, NOW)
    assert bench.clock.skew is None
