from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.adapters.card_api.circuit_breaker import (
    WHILE_PROBING,
    Attempt,
    BreakerLimits,
    CircuitBreaker,
    CircuitState,
    HeldOff,
)

S = CircuitState
LIMITS = BreakerLimits(
    failures_in_a_row=3,
    failure_share=0.5,
    least_calls=10,
    window=timedelta(seconds=10),
    cool_down=timedelta(seconds=4),
    longest_cool_down=timedelta(seconds=20),
)


@dataclass
class Bench:
    """A breaker with a clock that a test moves, and what it told."""

    limits: BreakerLimits = LIMITS
    jitter: Callable[[], float] = lambda: 1.0
    seconds: float = 1000.0
    told: list[tuple[str, int, float]] = field(default_factory=list)
    breaker: CircuitBreaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(self.limits, monotonic=lambda: self.seconds, jitter=self.jitter, watch=self)

    def opened(self, *, opening: int, cool_down: timedelta) -> None:
        """Hear that it opened."""
        self.told.append(("opened", opening, cool_down.total_seconds()))

    def closed(self, *, openings: int, after: timedelta) -> None:
        """Hear that it closed."""
        self.told.append(("closed", openings, after.total_seconds()))

    def state(self) -> CircuitState:
        """Tell where it is now."""
        return self.breaker.state

    def begin(self) -> Attempt:
        """Have a call let through."""
        attempt = self.breaker.admit()
        assert isinstance(attempt, Attempt)
        return attempt

    def fail(self, times: int = 1, asked: timedelta | None = None) -> None:
        """Have calls fail."""
        for _ in range(times):
            self.begin().failed(asked)

    def succeed(self, times: int = 1) -> None:
        """Have calls succeed."""
        for _ in range(times):
            self.begin().succeeded()

    def go_away(self) -> None:
        """Have a call end without a verdict."""
        with self.begin():
            raise KeyboardInterrupt

    def held_off(self) -> float:
        """Give for how long a call is held off."""
        held_off = self.breaker.admit()
        assert isinstance(held_off, HeldOff)
        return held_off.retry_after.total_seconds()

    def open(self) -> None:
        """Have it opened."""
        self.fail(self.limits.failures_in_a_row)
        assert self.state() is S.OPEN


@pytest.fixture
def bench() -> Bench:
    """A breaker that is closed."""
    return Bench()


def test_failures_in_a_row_open_it(bench: Bench) -> None:
    """Given the last of them, then no call goes through until the cool-down is over, and it is told once."""
    bench.fail(2)
    assert bench.state() is S.CLOSED
    bench.fail()
    assert bench.state() is S.OPEN
    assert bench.told == [("opened", 1, 4.0)]
    assert bench.held_off() == 4.0
    bench.seconds += 3
    assert bench.held_off() == 1.0
    assert bench.breaker.held_off() == HeldOff(timedelta(seconds=1), was_asked=False)


def test_a_success_in_between_begins_the_count_again(bench: Bench) -> None:
    """Given an API that fails now and then, then it stays closed."""
    for _ in range(2):
        bench.fail(2)
        bench.succeed()
    assert bench.state() is S.CLOSED


def test_too_large_a_share_of_failures_opens_it(bench: Bench) -> None:
    """Given calls enough to tell, when half of them have failed, though never three in a row, then it opens."""
    for _ in range(4):
        bench.succeed()
        bench.fail()
    bench.succeed()
    assert bench.state() is S.CLOSED
    bench.fail()
    assert bench.state() is S.OPEN


def test_a_share_of_too_few_calls_tells_nothing() -> None:
    """Given two calls of which one failed, then it stays closed."""
    bench = Bench(BreakerLimits(failures_in_a_row=100, least_calls=3))
    bench.succeed()
    bench.fail()
    assert bench.state() is S.CLOSED
    bench.fail()
    assert bench.state() is S.OPEN


def test_what_lies_before_the_window_is_forgotten(bench: Bench) -> None:
    """Given a bad quarter of an hour long ago, then a failure of today does not open it."""
    for _ in range(4):
        bench.succeed()
        bench.fail()
    bench.seconds += 10
    bench.succeed()
    bench.fail()
    assert bench.state() is S.CLOSED


def test_memory_does_not_grow_with_calls(bench: Bench) -> None:
    """Given calls for an hour, then no more is kept than the slices of one window."""
    for _ in range(3600):
        bench.succeed()
        bench.seconds += 1
    assert len(bench.breaker._recent._counts) <= 10


def test_after_the_cool_down_one_call_finds_out(bench: Bench) -> None:
    """Given an open breaker, when the cool-down is over, then one call goes through, and the others wait for it."""
    bench.open()
    bench.seconds += 4
    assert bench.state() is S.HALF_OPEN
    assert bench.breaker.held_off() is None
    probe = bench.begin()
    assert bench.state() is S.HALF_OPEN
    assert bench.held_off() == WHILE_PROBING.total_seconds()
    bench.seconds += 0.5
    probe.succeeded()
    assert bench.state() is S.CLOSED
    assert bench.told[1:] == [("closed", 1, 4.5)]
    bench.fail(2)
    assert bench.state() is S.CLOSED


def test_a_probe_that_fails_doubles_the_cool_down(bench: Bench) -> None:
    """Given an outage that lasts, then it is asked about less and less often, up to a limit, until it is over."""
    bench.open()
    for opening, cool_down in [(2, 8.0), (3, 16.0), (4, 20.0), (5, 20.0)]:
        bench.seconds += bench.held_off()
        bench.fail()
        assert bench.told[-1:] == [("opened", opening, cool_down)]
        assert bench.held_off() == cool_down
    bench.seconds += 20
    bench.succeed()
    assert bench.told[-1:] == [("closed", 5, 4 + 8 + 16 + 20 + 20)]
    bench.open()
    assert bench.told[-1:] == [("opened", 1, 4.0)]


def test_a_very_long_outage_is_no_overflow(bench: Bench) -> None:
    """Given thousands of failed probes, then the cool-down is the longest one."""
    assert LIMITS.cool_down_of(100_000, 1.0) == timedelta(seconds=20)


def test_a_call_from_before_the_opening_changes_nothing(bench: Bench) -> None:
    """Given calls under way when it opens, then their ends, good or bad, say nothing about the time after it."""
    good, bad, late = bench.begin(), bench.begin(), bench.begin()
    bench.open()
    good.succeeded()
    assert bench.state() is S.OPEN
    bench.seconds += 4
    probe = bench.begin()
    bad.failed()
    assert len(bench.told) == 1
    probe.succeeded()
    late.failed()
    bench.fail(2)
    assert bench.state() is S.CLOSED


def test_a_probe_without_a_verdict_makes_room(bench: Bench) -> None:
    """Given a probe whose caller goes away, then the next call is the probe."""
    bench.open()
    bench.seconds += 4
    with pytest.raises(KeyboardInterrupt):
        bench.go_away()
    assert bench.breaker.held_off() is None
    with bench.begin() as probe:
        probe.succeeded()
    assert bench.state() is S.CLOSED


def test_a_call_without_a_verdict_counts_for_nothing(bench: Bench) -> None:
    """Given failures, when a call in between says nothing, then they are still in a row."""
    bench.fail(2)
    with bench.begin():
        pass
    bench.fail()
    assert bench.state() is S.OPEN


def test_one_verdict_is_heard(bench: Bench) -> None:
    """Given a second verdict of one call, then it is passed over."""
    attempt = bench.begin()
    with attempt:
        attempt.failed()
        for _ in range(5):
            attempt.failed()
        attempt.succeeded()
    bench.fail(2)
    assert bench.state() is S.OPEN


def test_whoever_asks_to_be_left_alone_is(bench: Bench) -> None:
    """Given that the other side asks for a while, then nothing goes through until then, and nothing has failed."""
    bench.breaker.hold_off(timedelta(seconds=7))
    bench.breaker.hold_off(timedelta(seconds=3))
    assert bench.breaker.held_off() == HeldOff(timedelta(seconds=7), was_asked=True)
    assert bench.state() is S.CLOSED
    assert bench.told == []
    bench.seconds += 7
    bench.succeed()


def test_nobody_is_left_alone_for_longer_than_the_limit(bench: Bench) -> None:
    """Given that it asks for an hour, then it is asked again after the longest cool-down."""
    bench.breaker.hold_off(timedelta(hours=1))
    assert bench.held_off() == 20.0


@pytest.mark.parametrize(("asked", "cool_down"), [(1, 4.0), (9, 9.0), (3600, 20.0)])
def test_a_failure_may_say_when_to_come_back(bench: Bench, asked: int, cool_down: float) -> None:
    """Given 503 with ``Retry-After`` as the last failure, then the cool-down is no shorter, up to the limit."""
    bench.fail(3, timedelta(seconds=asked))
    assert bench.held_off() == cool_down


@given(jitter=st.floats(0, 1), opening=st.integers(1, 50))
def test_cool_downs_are_jittered(jitter: float, opening: int) -> None:
    """Each is between half and all of what it would be: replicas do not come back in step."""
    whole = min(4.0 * 2.0 ** (opening - 1), 20.0)
    assert whole / 2 <= LIMITS.cool_down_of(opening, jitter).total_seconds() <= whole


def test_nobody_has_to_watch() -> None:
    """Given no one who listens, then it works all the same."""
    now = 0.0
    breaker = CircuitBreaker(BreakerLimits(failures_in_a_row=1), monotonic=lambda: now)
    for verdict in (Attempt.failed, Attempt.succeeded):
        attempt = breaker.admit()
        assert isinstance(attempt, Attempt)
        verdict(attempt)
        now += 60
    assert breaker.state is S.CLOSED


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"failures_in_a_row": 0}, "failures_in_a_row"),
        ({"least_calls": 0}, "least_calls"),
        ({"failure_share": 0.0}, "failure_share"),
        ({"failure_share": 1.1}, "failure_share"),
        ({"window": timedelta(0)}, "window"),
        ({"cool_down": timedelta(0)}, "cool_down"),
        ({"cool_down": timedelta(minutes=1)}, "longest_cool_down"),
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any], named: str) -> None:
    """The one that is wrong is named."""
    with pytest.raises(ValueError, match=named):
        BreakerLimits(**wrong)


@dataclass(frozen=True)
class Call:
    """A call that was let through: the model's number of moves before it, and whether it is a probe."""

    attempt: Attempt
    moves: int
    is_probe: bool


class Model:
    """The plainest breaker, moved beside the real one: two failures in a row open it, for 1, 2, then 4 seconds.

    Spans are multiples of a quarter of a second, so that neither of the two rounds.
    """

    def __init__(self) -> None:
        limits = BreakerLimits(
            failures_in_a_row=2,
            least_calls=1_000_000,
            cool_down=timedelta(seconds=1),
            longest_cool_down=timedelta(seconds=4),
        )
        self.bench = Bench(limits)
        self.under_way: list[Call] = []
        self.is_closed = True
        self.moves = 0
        self.in_a_row = 0
        self.openings = 0
        self.is_probed = False
        self.open_until = self.asked_until = 0.0

    def wait(self) -> float:
        """Give for how long a call is held off."""
        waits = [0.0, self.asked_until - self.bench.seconds]
        if not self.is_closed:
            waits += [self.open_until - self.bench.seconds, float(self.is_probed)]
        return max(waits)

    def call(self, _: int) -> None:
        """Begin a call: both let it through, or both hold it off for as long."""
        wait = self.wait()
        outcome = self.bench.breaker.admit()
        if isinstance(outcome, HeldOff):
            assert outcome.retry_after.total_seconds() == wait > 0
            return
        assert wait == 0
        self.is_probed = not self.is_closed
        self.under_way.append(Call(outcome, self.moves, self.is_probed))

    def succeed(self, number: int) -> None:
        """End a call well."""
        call = self.under_way.pop(number % len(self.under_way))
        call.attempt.succeeded()
        if call.moves == self.moves:
            self.in_a_row = 0
            if call.is_probe:
                self.is_closed, self.is_probed, self.openings = True, False, 0
                self.moves += 1

    def fail(self, number: int) -> None:
        """End a call badly."""
        call = self.under_way.pop(number % len(self.under_way))
        call.attempt.failed()
        if call.moves == self.moves:
            self.in_a_row += 1
            if call.is_probe or self.in_a_row >= 2:
                self.is_closed = self.is_probed = False
                self.moves += 1
                self.openings += 1
                self.open_until = self.bench.seconds + min(2.0 ** (self.openings - 1), 4.0)

    def abandon(self, number: int) -> None:
        """End a call without a verdict."""
        call = self.under_way.pop(number % len(self.under_way))
        with call.attempt:
            pass
        if call.moves == self.moves and call.is_probe:
            self.is_probed = False

    def pass_time(self, quarters: int) -> None:
        """Let time pass."""
        self.bench.seconds += quarters / 4

    def hold_off(self, quarters: int) -> None:
        """Be asked to stay away."""
        span = quarters / 4
        self.bench.breaker.hold_off(timedelta(seconds=span))
        self.asked_until = max(self.asked_until, self.bench.seconds + min(span, 4.0))

    def compare(self) -> None:
        """See that both are where they say they are, and that looking changes nothing."""
        held_off = self.bench.breaker.held_off()
        assert (0.0 if held_off is None else held_off.retry_after.total_seconds()) == self.wait()
        is_open = not self.is_probed and self.bench.seconds < self.open_until
        assert self.bench.state() is (S.CLOSED if self.is_closed else S.OPEN if is_open else S.HALF_OPEN)
        number = 0
        for what, count, _ in self.bench.told:
            number = number + 1 if what == "opened" else 0
            assert what == "closed" or count == number
        assert number == self.openings


ENDS = [Model.succeed, Model.fail, Model.fail, Model.abandon]
STEPS = [*[Model.call] * 8, *ENDS * 2, *[Model.pass_time] * 4, Model.hold_off]


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 8)), min_size=30, max_size=120))
def test_whatever_the_order_it_is_where_the_model_is(steps: list[tuple[Callable[[Model, int], None], int]]) -> None:
    """Calls, their ends, pauses and wishes in any order: it lets through what the model lets through, nothing else."""
    model = Model()
    for step, number in steps:
        if model.under_way or step not in ENDS:
            step(model, number)
            model.compare()
