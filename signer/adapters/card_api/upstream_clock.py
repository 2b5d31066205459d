"""The card API's clock, as its ``Date`` shows it (RFC 9110 §6.6.1), and what follows from it for ours.

* The card API refuses a request whose ``created`` lies in its future, even by a second. Where its clock is behind ours,
  ``created`` is back-dated by as much, up to a limit; where it is ahead, nothing is post-dated.
* What was observed is believed to half a second and half of the request's duration. An answer that took long says
  little, and is passed over where something better is known.
* Once a skew is larger than is tolerated, that is said; and once again when it is over, which is at half of that: a
  clock at the threshold does not fill the log.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final, Protocol

from signer.adapters.card_api.upstream_result import parse_http_date
from signer.application.ports import Clock

_HALF_A_SECOND: Final = timedelta(milliseconds=500)
"""``Date`` is cut to the second: on average it is this much early."""
_LONG: Final = timedelta(seconds=2)
"""An answer that took longer does not replace what a quicker one told."""
_NOTHING: Final = timedelta(0)
_A_SECOND: Final = 1.0


class ClockWatch(Protocol):
    """Hears how the card API's clock and ours agree. Neither method raises, and neither waits."""

    def skewed(self, skew: timedelta) -> None:
        """They are further apart than is tolerated; ``skew`` is how far the API's is ahead of ours."""
        ...

    def agreed(self, skew: timedelta) -> None:
        """They agree again."""
        ...


class Unwatched:
    """Nobody hears of it."""

    def skewed(self, skew: timedelta) -> None:
        """See ``ClockWatch``."""

    def agreed(self, skew: timedelta) -> None:
        """See ``ClockWatch``."""


class UpstreamClock:
    """Our clock, and how far the card API's is from it."""

    def __init__(
        self,
        clock: Clock,
        *,
        tolerated: timedelta = timedelta(seconds=5),
        longest_backdate: timedelta = timedelta(seconds=60),
        watch: ClockWatch | None = None,
    ) -> None:
        """Begin without knowing anything of the API's.

        Args:
            clock: ours.
            tolerated: how far the two may be apart before that is worth a warning.
            longest_backdate: how far ``created`` is back-dated at most, for a clock that is behind ours.
            watch: hears when the two part, and when they agree again.
        """
        self._clock = clock
        self._tolerated = tolerated
        self._longest_backdate = longest_backdate
        self._watch: ClockWatch = Unwatched() if watch is None else watch
        self._skew: timedelta | None = None
        self._last_date: str | None = None
        self._is_skewed = False

    @property
    def skew(self) -> timedelta | None:
        """How far the API's clock is ahead of ours, to about half a second; ``None`` before its first answer."""
        return self._skew

    @property
    def is_skewed(self) -> bool:
        """Whether the two are further apart than is tolerated."""
        return self._is_skewed

    def now(self) -> datetime:
        """Give the present by our own clock."""
        return self._clock.now()

    def now_upstream(self) -> datetime:
        """Give the present by the API's clock, as far as it is known."""
        return self._clock.now() + (self._skew or _NOTHING)

    def seconds_for_created(self) -> int:
        """Give the present for a request's ``created``, whole seconds of Unix time: not ahead of the API's clock."""
        behind = 0.0 if self._skew is None else -self._skew.total_seconds()
        if behind < _A_SECOND:  # two clocks that are right are no closer than that, by what ``Date`` tells
            behind = 0.0
        return int(self._clock.now().timestamp()) - math.ceil(min(behind, self._longest_backdate.total_seconds()))

    def observe(self, date: str | None, sent_at: datetime) -> None:
        """Learn from an answer that has just come.

        Args:
            date: its ``Date``; most answers of a busy second bring the one that is known already.
            sent_at: when its request was sent, by our clock.
        """
        if date is None or date == self._last_date:
            return
        moment = parse_http_date(date)
        if moment is None:
            return
        took = self._clock.now() - sent_at
        if self._skew is not None and not _NOTHING <= took <= _LONG:
            return
        self._last_date = date
        self._skew = moment + _HALF_A_SECOND - (sent_at + took / 2)
        self._tell(self._skew)

    def _tell(self, skew: timedelta) -> None:
        apart = abs(skew)
        if not self._is_skewed and apart > self._tolerated:
            self._is_skewed = True
            self._watch.skewed(skew)
        elif self._is_skewed and apart <= self._tolerated / 2:
            self._is_skewed = False
            self._watch.agreed(skew)
