from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.adapters.card_api.circuit_breaker import PROBE_WAIT, CircuitBreaker
from signer.adapters.card_api.results import Failure
from signer.application.backoff import Backoff
from signer.domain.errors import ErrorCode

COOL_DOWN = Backoff(first_pause=timedelta(seconds=4), longest_pause=timedelta(seconds=20))


def failure_of(cause: str, retry_after: timedelta | None = None) -> Failure:
    """Return the failure of a call."""
    return Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="It failed.", cause=cause, retry_after=retry_after)


@dataclass
class Bench:
    """A breaker with a clock that a test moves; also its listener."""

    failures_to_open: int = 3
    cool_down: Backoff = COOL_DOWN
    jitter: Callable[[], float] = lambda: 1.0
    seconds: float = 1000.0
    events: list[tuple[str, int, float]] = field(default_factory=list)
    failure: Failure | None = None
    breaker: CircuitBreaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(
            monotonic=lambda: self.seconds,
            failures_to_open=self.failures_to_open,
            cool_down=self.cool_down,
            jitter=self.jitter,
            listener=self,
        )

    def breaker_opened(self, *, opening: int, cool_down: timedelta, failure: Failure) -> None:
        """Record the event."""
        self.events.append(("opened", opening, cool_down.total_seconds()))
        self.failure = failure

    def breaker_closed(self, *, openings: int, after: timedelta) -> None:
        """Record the event."""
        self.events.append(("closed", openings, after.total_seconds()))

    def is_closed(self) -> bool:
        """Return whether the last event, if any, is that the breaker closed."""
        return not self.events or self.events[-1][0] == "closed"

    def admit(self) -> int:
        """Start a call that must be admitted."""
        call = self.breaker.admit()
        assert isinstance(call, int)
        return call

    def fail(self, times: int = 1, retry_after: timedelta | None = None) -> None:
        """Make calls that fail."""
        for _ in range(times):
            self.breaker.report(self.admit(), succeeded=False, failure=failure_of("server_error", retry_after))

    def succeed(self) -> None:
        """Make a call that succeeds."""
        self.breaker.report(self.admit(), succeeded=True)

    def suspended_for(self) -> float:
        """Return for how many seconds a call is suspended; it must not be admitted."""
        suspension = self.breaker.admit()
        assert isinstance(suspension, Failure)
        assert suspension == self.breaker.suspension()
        assert suspension.retry_after is not None
        return suspension.retry_after.total_seconds()

    def suspension(self) -> str:
        """Return why a call is suspended."""
        suspension = self.breaker.suspension()
        assert suspension is not None
        return suspension.detail

    def open(self) -> None:
        """Make the breaker open."""
        self.fail(self.failures_to_open)
        assert not self.is_closed()
        assert self.suspended_for() > 0


@pytest.fixture
def bench() -> Bench:
    """A closed breaker."""
    return Bench()


def test_consecutive_failures_open_breaker_for_cool_down(bench: Bench) -> None:
    """No call is admitted until the cool-down is over, and the listener is told once."""
    bench.fail(2)
    assert bench.is_closed()
    bench.fail()
    assert bench.events == [("opened", 1, 4.0)]
    assert bench.suspended_for() == 4.0
    bench.seconds += 3
    suspension = bench.breaker.suspension()
    assert suspension is not None
    assert suspension.retry_after == timedelta(seconds=1)
    assert suspension.detail == ("server_error: It failed. Paused after repeated card API failures; retry after 1 s.")


def test_success_resets_failure_count(bench: Bench) -> None:
    """Occasional failures leave the breaker closed."""
    for _ in range(2):
        bench.fail(2)
        bench.succeed()
    assert bench.is_closed()


def test_probe_that_succeeds_closes_breaker(bench: Bench) -> None:
    """After the cool-down one call is admitted; the others wait for its result."""
    bench.open()
    bench.seconds += 4
    assert bench.breaker.suspension() is None
    probe = bench.admit()
    assert bench.suspended_for() == PROBE_WAIT.total_seconds()
    bench.seconds += 0.5
    bench.breaker.report(probe, succeeded=True)
    assert bench.events[1:] == [("closed", 1, 4.5)]
    bench.fail(2)
    assert bench.is_closed()


def test_probe_that_fails_doubles_cool_down(bench: Bench) -> None:
    """Up to the longest one; after the breaker has closed, the next cool-down is the first one again."""
    bench.open()
    for opening, cool_down in [(2, 8.0), (3, 16.0), (4, 20.0), (5, 20.0)]:
        bench.seconds += bench.suspended_for()
        bench.fail()
        assert bench.events[-1:] == [("opened", opening, cool_down)]
        assert bench.suspended_for() == cool_down
    bench.seconds += 20
    bench.succeed()
    assert bench.events[-1:] == [("closed", 5, 4 + 8 + 16 + 20 + 20)]
    bench.open()
    assert bench.events[-1:] == [("opened", 1, 4.0)]


def test_result_of_call_admitted_before_opening_is_ignored(bench: Bench) -> None:
    """Calls in flight when the breaker opens say nothing about the time after it, good or bad."""
    good, bad, late = bench.admit(), bench.admit(), bench.admit()
    bench.open()
    bench.breaker.report(good, succeeded=True)
    assert bench.suspended_for() == 4.0
    bench.seconds += 4
    probe = bench.admit()
    bench.breaker.report(bad, succeeded=False)
    assert len(bench.events) == 1
    bench.breaker.report(probe, succeeded=True)
    bench.breaker.report(late, succeeded=False)
    bench.fail(2)
    assert bench.is_closed()


def test_probe_without_result_frees_its_place(bench: Bench) -> None:
    """If the caller of the probe is cancelled, the next call is the probe."""
    bench.open()
    bench.seconds += 4
    bench.breaker.report(bench.admit(), succeeded=None)
    assert bench.breaker.suspension() is None
    bench.succeed()
    assert bench.is_closed()


def test_call_without_result_does_not_reset_failure_count(bench: Bench) -> None:
    """The failures around it are still consecutive."""
    bench.fail(2)
    bench.breaker.report(bench.admit(), succeeded=None)
    bench.fail()
    assert bench.suspended_for() == 4.0


def test_requested_suspension_admits_nothing_and_is_no_failure(bench: Bench) -> None:
    """The longer of two requests counts; the breaker stays closed."""
    bench.breaker.suspend(timedelta(seconds=7))
    bench.breaker.suspend(timedelta(seconds=3))
    suspension = bench.breaker.suspension()
    assert suspension is not None
    assert suspension.detail == "Paused at the card API's request; retry after 7 s."
    assert bench.suspended_for() == 7.0
    assert bench.events == []
    bench.seconds += 7
    bench.succeed()


def test_requested_suspension_is_limited_to_longest_cool_down(bench: Bench) -> None:
    """A request for an hour ends after 20 s."""
    bench.breaker.suspend(timedelta(hours=1))
    assert bench.suspended_for() == 20.0


@pytest.mark.parametrize(("retry_after", "cool_down"), [(1, 4.0), (9, 9.0), (3600, 20.0)])
def test_retry_after_of_failure_lengthens_cool_down(bench: Bench, retry_after: int, cool_down: float) -> None:
    """The last failure's ``Retry-After`` is a lower bound, up to the longest cool-down."""
    bench.fail(3, timedelta(seconds=retry_after))
    assert bench.suspended_for() == cool_down


def test_cool_down_of_very_long_outage_is_the_longest(bench: Bench) -> None:
    """Thousands of failed probes cause no overflow."""
    bench.open()
    for _ in range(2000):
        bench.seconds += 20
        bench.fail()
    assert bench.suspended_for() == 20.0


def test_cool_down_is_jittered() -> None:
    """Replicas that opened together do not probe together."""
    bench = Bench(jitter=lambda: 0.5)
    bench.open()
    assert bench.suspended_for() == 3.0


def test_breaker_works_without_listener() -> None:
    """The listener is optional."""
    now = 0.0
    breaker = CircuitBreaker(monotonic=lambda: now, failures_to_open=1)
    for succeeded in (False, True):
        call = breaker.admit()
        assert isinstance(call, int)
        breaker.report(call, succeeded=succeeded)
        assert (breaker.suspension() is None) == succeeded
        now += 60


@dataclass(frozen=True)
class ModelCall:
    """An admitted call: the model's number of state changes before it, and whether it is a probe."""

    call: int
    changes: int
    is_probe: bool


class Model:
    """The simplest breaker, run beside the real one: two failures in a row open it, for 1, 2, then 4 seconds.

    Times are multiples of a quarter of a second, so that neither of the two rounds.
    """

    def __init__(self) -> None:
        cool_down = Backoff(first_pause=timedelta(seconds=1), longest_pause=timedelta(seconds=4))
        self.bench = Bench(failures_to_open=2, cool_down=cool_down)
        self.in_flight: list[ModelCall] = []
        self.is_closed = True
        self.changes = 0
        self.failures = 0
        self.openings = 0
        self.is_probing = False
        self.open_until = self.suspended_until = 0.0

    def wait(self) -> float:
        """Return for how long a call is suspended."""
        waits = [0.0, self.suspended_until - self.bench.seconds]
        if not self.is_closed:
            waits += [self.open_until - self.bench.seconds, float(self.is_probing)]
        return max(waits)

    def admit(self, _: int) -> None:
        """Start a call: both admit it, or both suspend it for the same time."""
        wait = self.wait()
        result = self.bench.breaker.admit()
        if isinstance(result, Failure):
            assert result.retry_after == timedelta(seconds=wait) > timedelta(0)
            return
        assert wait == 0
        self.is_probing = not self.is_closed
        self.in_flight.append(ModelCall(result, self.changes, self.is_probing))

    def succeed(self, number: int) -> None:
        """Finish a call with a success."""
        call = self.in_flight.pop(number % len(self.in_flight))
        self.bench.breaker.report(call.call, succeeded=True)
        if call.changes == self.changes:
            self.failures = 0
            if call.is_probe:
                self.is_closed, self.is_probing, self.openings = True, False, 0
                self.changes += 1

    def fail(self, number: int) -> None:
        """Finish a call with a failure."""
        call = self.in_flight.pop(number % len(self.in_flight))
        self.bench.breaker.report(call.call, succeeded=False)
        if call.changes == self.changes:
            self.failures += 1
            if call.is_probe or self.failures >= 2:
                self.is_closed = self.is_probing = False
                self.changes += 1
                self.openings += 1
                self.open_until = self.bench.seconds + min(2.0 ** (self.openings - 1), 4.0)

    def abandon(self, number: int) -> None:
        """Finish a call without a result."""
        call = self.in_flight.pop(number % len(self.in_flight))
        self.bench.breaker.report(call.call, succeeded=None)
        if call.changes == self.changes and call.is_probe:
            self.is_probing = False

    def advance(self, quarters: int) -> None:
        """Let time pass."""
        self.bench.seconds += quarters / 4

    def suspend(self, quarters: int) -> None:
        """Request a suspension."""
        seconds = quarters / 4
        self.bench.breaker.suspend(timedelta(seconds=seconds))
        self.suspended_until = max(self.suspended_until, self.bench.seconds + min(seconds, 4.0))

    def compare(self) -> None:
        """Check that both are in the same state, and that reading it changes nothing."""
        suspension = self.bench.breaker.suspension()
        retry_after = timedelta(0) if suspension is None else suspension.retry_after
        assert retry_after == timedelta(seconds=self.wait())
        assert self.bench.is_closed() == self.is_closed
        number = 0
        for event, count, _ in self.bench.events:
            number = number + 1 if event == "opened" else 0
            assert event == "closed" or count == number
        assert number == self.openings


RESULTS = [Model.succeed, Model.fail, Model.fail, Model.abandon]
STEPS = [*[Model.admit] * 8, *RESULTS * 2, *[Model.advance] * 4, Model.suspend]


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 8)), min_size=30, max_size=120))
def test_breaker_equals_model_for_any_order_of_steps(steps: list[tuple[Callable[[Model, int], None], int]]) -> None:
    """Calls, their results, pauses and suspensions in any order: the breaker admits exactly what the model admits."""
    model = Model()
    for step, number in steps:
        if model.in_flight or step not in RESULTS:
            step(model, number)
            model.compare()


def test_failure_that_opened_breaker_is_in_log_and_suspension() -> None:
    """The last one, with its cause and its sentence; that of a probe replaces it."""
    bench = Bench(failures_to_open=2)
    bench.breaker.report(bench.admit(), succeeded=False, failure=failure_of("timeout"))
    bench.breaker.report(bench.admit(), succeeded=False, failure=failure_of("server_error"))
    assert bench.failure == failure_of("server_error")
    assert bench.failure.shown in bench.suspension()
    bench.seconds += 4
    bench.breaker.report(bench.admit(), succeeded=False, failure=failure_of("tls"))
    assert bench.failure == failure_of("tls")
    assert bench.suspension().startswith("tls: It failed. Paused after repeated card API failures; retry after ")


def test_pause_that_was_asked_for_does_not_open_the_breaker() -> None:
    """It is no outage."""
    bench = Bench()
    bench.breaker.suspend(timedelta(seconds=5))
    assert bench.suspended_for() == 5
    assert not bench.breaker.is_open
    bench.seconds += 5
    bench.open()
    assert bench.breaker.is_open
