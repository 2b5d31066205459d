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
    """A clock under observation, with a hand on ours, and what it told."""

    def __init__(self) -> None:
        self.ours = FakeClock(NOW)
        self.told: list[tuple[str, int]] = []
        self.clock = UpstreamClock(self.ours, watch=self)

    def skewed(self, skew: timedelta) -> None:
        """Hear that the two have parted."""
        self.told.append(("skewed", round(skew.total_seconds())))

    def agreed(self, skew: timedelta) -> None:
        """Hear that they agree again."""
        self.told.append(("agreed", round(skew.total_seconds())))

    def answer(self, ahead: float, took: timedelta = NO_TIME) -> None:
        """Have an answer come whose sender's clock is so many seconds ahead."""
        sent_at = self.ours.now()
        self.ours.advance(took)
        written_at = sent_at + took / 2 + timedelta(seconds=ahead)
        self.clock.observe(format_datetime(written_at, usegmt=True), sent_at)

    def backdated(self) -> int:
        """Give by how many seconds ``created`` is put back."""
        return int(self.ours.now().timestamp()) - self.clock.seconds_for_created()


@pytest.fixture
def bench() -> Bench:
    """A clock that has observed nothing yet."""
    return Bench()


def test_before_the_first_answer_ours_is_believed(bench: Bench) -> None:
    """Nothing is known, nothing told, nothing put back."""
    assert (bench.clock.skew, bench.clock.is_skewed, bench.backdated()) == (None, False, 0)
    assert bench.clock.now() == bench.clock.now_upstream() == NOW


@pytest.mark.parametrize(
    ("ahead", "backdated"),
    [(0, 0), (-0.4, 0), (-1.5, 2), (-20, 20), (-60, 60), (-61, 60), (-86_400, 60), (1, 0), (86_400, 0)],
)
def test_created_is_put_back_for_an_api_that_is_behind(bench: Bench, ahead: float, backdated: int) -> None:
    """By as much as it is behind, in whole seconds, up to the limit; never forward, and not for what is no skew."""
    bench.answer(ahead)
    assert bench.backdated() == pytest.approx(backdated, abs=1 if backdated not in {0, 60} else 0)


@given(behind=st.floats(0, 60), fraction=st.floats(0, 0.999))
def test_created_is_not_in_the_apis_future(behind: float, fraction: float) -> None:
    """With the usual back-dating of two seconds on top, whatever fraction ``Date`` has cut off."""
    bench = Bench()
    bench.ours.advance(timedelta(seconds=fraction))
    bench.answer(-behind)
    upstream = bench.ours.now().timestamp() - behind
    assert bench.clock.seconds_for_created() - 2 <= upstream


def test_the_skew_is_told_once_and_once_that_it_is_over(bench: Bench) -> None:
    """A skew that stays fills no log, nor does one that goes to and fro at the threshold."""
    for ahead in (4, -4, 0):
        bench.answer(ahead)
        bench.ours.advance(timedelta(seconds=2))
    assert bench.told == []
    for ahead in (20, 21, 4, 6, 4, -30):
        bench.answer(ahead)
        assert bench.clock.is_skewed
        bench.ours.advance(timedelta(seconds=2))
    assert bench.told == [("skewed", 20)]
    bench.answer(1)
    assert not bench.clock.is_skewed
    bench.ours.advance(timedelta(seconds=2))
    bench.answer(-7)
    assert bench.told == [("skewed", 20), ("agreed", 1), ("skewed", -7)]


def test_nobody_has_to_watch() -> None:
    """Given no one who listens, then it works all the same."""
    clock = UpstreamClock(FakeClock(NOW))
    for date in ("Sun, 22 Nov 2026 13:00:00 GMT", "Sun, 22 Nov 2026 12:00:00 GMT"):
        clock.observe(date, NOW)
    assert not clock.is_skewed


def test_a_slow_answer_does_not_replace_what_a_quick_one_told(bench: Bench) -> None:
    """When within a long while the API looked at its clock is not known."""
    bench.answer(0)
    bench.answer(-4, took=timedelta(seconds=8))
    assert bench.backdated() == 0
    bench.answer(-4)
    assert bench.backdated() == pytest.approx(4, abs=1)


def test_a_slow_answer_is_better_than_none(bench: Bench) -> None:
    """The first one tells something in any case."""
    bench.answer(-20, took=timedelta(seconds=8))
    assert bench.backdated() == pytest.approx(20, abs=5)


def test_an_answer_that_came_before_its_request_tells_nothing(bench: Bench) -> None:
    """Our own clock was set back in between: the next answer tells."""
    bench.answer(0)
    bench.answer(0, took=timedelta(seconds=-30))
    assert bench.told == []
    bench.answer(0)
    assert bench.backdated() == 0


@pytest.mark.parametrize("date", [None, "", "today", "Sun, 22 Nov 2026 12:00:00 -0000"])
def test_a_date_that_is_none_is_passed_over(bench: Bench, date: str | None) -> None:
    """It changes nothing that is known."""
    bench.clock.observe(date, NOW)
    assert bench.clock.skew is None
