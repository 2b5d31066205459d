"""Stops asking what failed again and again, and finds out with one call at a time whether it is back.

::

              failures in a row, or too large a share of them
     closed ──────────────────────────────────────────────────▶ open ◀─────────┐
        ▲                                          the cool-down │             │ the probe fails:
        │ the probe succeeds                             is over ▼             │ a longer cool-down
        └──────────────────────────────────────────────────── half-open ───────┘

* Closed, every call goes through. Open, none does. Half-open, one does, the probe, and the others are told to wait.
* A call's end counts only while the breaker is as it was when the call began: what was sent before the opening says
  nothing about the time after it.
* A call that ends without a verdict (it was cancelled, or says nothing) counts for nothing; a probe makes room for
  another one.
* Cool-downs are jittered, so that replicas do not come back in step, and double with each probe that fails.
* Whoever is asked to stay away for a while (``hold_off``) lets nothing through until then; nothing has failed by that.

It has no timer and no task, keeps no list of calls, and does not wait. It belongs to one event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol, Self

_SLICES: Final = 10
_LONGEST_DOUBLING: Final = 32
WHILE_PROBING: Final = timedelta(seconds=1)
"""What the others are told to wait while somebody else's call finds out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """When a breaker opens, and for how long.

    Attributes:
        failures_in_a_row: so many open it.
        failure_share: so does this share of the calls (0 … 1) that ended within ``window``, …
        least_calls: … where at least so many did.
        window: how far back calls are counted.
        cool_down: how long it stays open at first, jittered to between half and all of it; doubles.
        longest_cool_down: the cap on that, and on every ``hold_off``: nothing is left unasked for longer.

    Raises:
        ValueError: at construction, with the limit and the reason.
    """

    failures_in_a_row: int = 5
    failure_share: float = 0.5
    least_calls: int = 20
    window: timedelta = timedelta(seconds=10)
    cool_down: timedelta = timedelta(seconds=2)
    longest_cool_down: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if min(self.failures_in_a_row, self.least_calls) < 1:
            raise ValueError("failures_in_a_row and least_calls have to be at least 1")
        if not 0 < self.failure_share <= 1:
            raise ValueError("failure_share has to be more than 0 and at most 1")
        if self.window <= timedelta(0):
            raise ValueError("window has to be more than 0 seconds")
        if not timedelta(0) < self.cool_down <= self.longest_cool_down:
            raise ValueError("cool_down has to be more than 0 seconds and at most longest_cool_down")

    def cool_down_of(self, opening: int, jitter: float) -> timedelta:
        """Give the cool-down of opening number ``opening`` in a row (from 1); ``jitter`` is 0 … 1."""
        doubled: timedelta = self.cool_down * 2 ** min(opening - 1, _LONGEST_DOUBLING)
        return min(doubled, self.longest_cool_down) * (0.5 + jitter / 2)


class BreakerWatch(Protocol):
    """Hears of a breaker's moves. Neither method raises, and neither waits."""

    def opened(self, *, opening: int, cool_down: timedelta) -> None:
        """It opened, for the ``opening``-th time since it was last closed."""
        ...

    def closed(self, *, openings: int, after: timedelta) -> None:
        """It closed again, after so many openings and so much time since the first of them."""
        ...


class Unwatched:
    """Nobody hears of it."""

    def opened(self, *, opening: int, cool_down: timedelta) -> None:
        """See ``BreakerWatch``."""

    def closed(self, *, openings: int, after: timedelta) -> None:
        """See ``BreakerWatch``."""


class CircuitState(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class HeldOff:
    """A call that is not let through.

    Attributes:
        retry_after: when the next one may be; more than nothing.
        was_asked: whether the other side asked for it, and has not failed.
    """

    retry_after: timedelta
    was_asked: bool


class Attempt:
    """One call that was let through. Enter it, and give one verdict before leaving, if there is one."""

    __slots__ = ("_breaker", "_era")

    def __init__(self, breaker: CircuitBreaker, era: int) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self._era = era

    def succeeded(self) -> None:
        """Say that the other side works, whatever it answered."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._succeeded(self._era)  # noqa: SLF001 - the two are one thing

    def failed(self, asked: timedelta | None = None) -> None:
        """Say that it does not; ``asked`` is for how long it wants not to be called, where it says so."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._failed(self._era, asked)  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._abandoned(self._era)  # noqa: SLF001


class CircuitBreaker:
    """Says of each call whether it goes through, and learns from its end."""

    def __init__(
        self,
        limits: BreakerLimits,
        *,
        monotonic: Callable[[], float],
        jitter: Callable[[], float] = random.random,
        watch: BreakerWatch | None = None,
    ) -> None:
        """Begin closed.

        Args:
            limits: when it opens, and for how long.
            monotonic: seconds of a clock that never jumps.
            jitter: gives 0 … 1.
            watch: hears when it opens and closes.
        """
        self._limits = limits
        self._monotonic = monotonic
        self._jitter = jitter
        self._watch: BreakerWatch = Unwatched() if watch is None else watch
        self._era = 0  # grows with each opening and closing: a verdict from before is no longer heard
        self._openings = 0  # since it was last closed
        self._first_opened = 0.0
        self._open_until = 0.0
        self._probing = False
        self._asked_until = 0.0
        self._in_a_row = 0
        self._recent = _Recent(limits.window.total_seconds())

    @property
    def state(self) -> CircuitState:
        """Where it is now; a cool-down that is over makes it half-open."""
        if not self._openings:
            return CircuitState.CLOSED
        is_open = not self._probing and self._monotonic() < self._open_until
        return CircuitState.OPEN if is_open else CircuitState.HALF_OPEN

    def held_off(self) -> HeldOff | None:
        """Say whether a call would be held off now; takes no probe's place."""
        now = self._monotonic()
        asked = self._asked_until - now
        left = self._open_until - now if self._openings else 0.0
        if self._probing:
            left = max(left, WHILE_PROBING.total_seconds())
        longest = timedelta(seconds=max(asked, left))
        return HeldOff(longest, was_asked=asked > left) if longest > timedelta(0) else None

    def admit(self) -> Attempt | HeldOff:
        """Let a call through, or hold it off."""
        held_off = self.held_off()
        if held_off is not None:
            return held_off
        self._probing = self._openings > 0
        return Attempt(self, self._era)

    def hold_off(self, span: timedelta) -> None:
        """Let nothing through for ``span``, at most ``longest_cool_down``: the other side asked for it."""
        until = self._monotonic() + min(span, self._limits.longest_cool_down).total_seconds()
        self._asked_until = max(self._asked_until, until)

    def _succeeded(self, era: int) -> None:
        if era != self._era:
            return
        now = self._monotonic()
        if self._probing:
            openings, after = self._openings, timedelta(seconds=now - self._first_opened)
            self._probing, self._openings = False, 0
            self._era += 1
            self._recent.clear()
            self._in_a_row = 0
            self._watch.closed(openings=openings, after=after)
        else:
            self._in_a_row = 0
            self._recent.note(now, failed=False)

    def _failed(self, era: int, asked: timedelta | None) -> None:
        if era != self._era:
            return
        now = self._monotonic()
        self._in_a_row += 1
        self._recent.note(now, failed=True)
        if self._probing or self._is_too_much(now):
            self._open(now, asked)

    def _abandoned(self, era: int) -> None:
        if era == self._era and self._probing:
            self._probing = False

    def _is_too_much(self, now: float) -> bool:
        calls, failures = self._recent.totals(now)
        share = failures >= self._limits.failure_share * calls and calls >= self._limits.least_calls
        return share or self._in_a_row >= self._limits.failures_in_a_row

    def _open(self, now: float, asked: timedelta | None) -> None:
        if not self._openings:
            self._first_opened = now
        self._openings += 1
        self._probing = False
        self._era += 1
        cool_down = self._limits.cool_down_of(self._openings, self._jitter())
        if asked is not None:
            cool_down = max(cool_down, min(asked, self._limits.longest_cool_down))
        self._open_until = now + cool_down.total_seconds()
        self._watch.opened(opening=self._openings, cool_down=cool_down)


class _Recent:
    """How many calls ended, and failed, within the last seconds: counted by tenths of them, however many there are."""

    def __init__(self, span: float) -> None:
        self._slice = span / _SLICES
        self._counts: dict[int, tuple[int, int]] = {}

    def note(self, now: float, *, failed: bool) -> None:
        """Count one call."""
        number = int(now // self._slice)
        if number not in self._counts:
            self._counts = {known: counts for known, counts in self._counts.items() if number - known < _SLICES}
        calls, failures = self._counts.get(number, (0, 0))
        self._counts[number] = (calls + 1, failures + failed)

    def totals(self, now: float) -> tuple[int, int]:
        """Give calls and failures of the window that ends now."""
        number = int(now // self._slice)
        recent = [counts for known, counts in self._counts.items() if number - known < _SLICES]
        return sum(calls for calls, _ in recent), sum(failures for _, failures in recent)

    def clear(self) -> None:
        """Forget them."""
        self._counts.clear()
