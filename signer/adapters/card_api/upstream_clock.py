"""The card API's clock, as its ``Date`` shows it (RFC 9110 §6.6.1), and how far it is from ours.

* The card API refuses a request whose ``created`` lies in its future, even by a second. If its clock is behind ours,
  ``created`` is back-dated by the difference, up to a limit. It is never post-dated.
* An observed skew is exact to half a second plus half of the request's duration. A slow response is ignored if a
  better observation exists.
* A skew beyond ``TOLERATED_SKEW`` is reported once, and once again when it has shrunk to half of that.
* A skew of more than ``LONGEST_USED_SKEW`` is reported and not used: it is a broken ``Date`` of the card API, or of a
  proxy, or a clock that an operator must set. The last plausible skew stays in use.
* Only ``created`` depends on the card API's clock: nothing else is computed from it.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from signer.application.ports import Clock

TOLERATED_SKEW: Final = timedelta(seconds=5)
"""Far above what ``Date`` can show (a second) and what NTP leaves, far below what breaks signatures."""
LONGEST_BACKDATE: Final = timedelta(seconds=60)
"""A signature that is back-dated further would be worth something to an attacker for too long."""

LONGEST_USED_SKEW: Final = timedelta(minutes=5)
"""Far above ``LONGEST_BACKDATE``, so it refuses nothing that would help; far below the hours of a wrong time zone."""

_TRUNCATION: Final = timedelta(milliseconds=500)
"""``Date`` has no fraction of a second: on average it is this much early."""
_SLOW: Final = timedelta(seconds=2)
"""A response that took longer does not replace an earlier observation."""
_ZERO: Final = timedelta(0)
_SMALLEST_SKEW: Final = timedelta(seconds=1)
"""``Date`` cannot show a smaller one."""


class ClockListener(Protocol):
    """Called when the two clocks differ, and when they agree again. The methods must not raise or block."""

    def clock_skewed(self, skew: timedelta) -> None:
        """Report a skew beyond the tolerated one; positive if the card API's clock is ahead of ours."""
        ...

    def clock_agreed(self, skew: timedelta) -> None:
        """Report that the clocks agree again."""
        ...


class UpstreamClock:
    """Our clock, and how far the card API's clock is from it.

    Attributes:
        skew: how far the card API's clock is ahead of ours, as last observed; ``None`` before its first response.
        is_skewed: whether the skew is beyond the tolerated one.
    """

    def __init__(self, clock: Clock, *, listener: ClockListener | None = None) -> None:
        self._clock = clock
        self._listener = listener
        self.skew: timedelta | None = None
        self._used_skew = _ZERO
        self._last_date: str | None = None
        self.is_skewed = False

    def now(self) -> datetime:
        """Return the time by our clock."""
        return self._clock.now()

    def seconds_for_created(self) -> int:
        """Return the Unix time for a request's ``created``: not in the card API's future."""
        behind = -self._used_skew
        backdate = min(behind, LONGEST_BACKDATE) if behind >= _SMALLEST_SKEW else _ZERO
        return int(self._clock.now().timestamp()) - math.ceil(backdate.total_seconds())

    def observe(self, date: str | None, sent_at: datetime) -> None:
        """Update the skew from the ``Date`` of a response that has just arrived; ``sent_at`` is by our clock."""
        if date is None or date == self._last_date:
            return
        moment = parse_http_date(date)
        if moment is None:
            return
        took = self._clock.now() - sent_at
        if self.skew is not None and not _ZERO <= took <= _SLOW:
            return
        self._last_date = date
        self.skew = skew = moment - (sent_at + took / 2) + _TRUNCATION
        difference = abs(skew)
        if difference <= LONGEST_USED_SKEW:
            self._used_skew = skew
        if not self.is_skewed and difference > TOLERATED_SKEW:
            self.is_skewed = True
            if self._listener is not None:
                self._listener.clock_skewed(skew)
        elif self.is_skewed and difference <= TOLERATED_SKEW / 2:
            self.is_skewed = False
            if self._listener is not None:
                self._listener.clock_agreed(skew)


def parse_http_date(text: str) -> datetime | None:
    """Parse an HTTP-date (RFC 9110 §5.6.7) into an aware datetime; ``None`` if it is malformed."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return None if moment.tzinfo is None else moment
