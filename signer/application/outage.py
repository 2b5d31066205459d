"""Whether a part that the service depends on is down, by the results of its calls.

The rule:

* *Down* if calls have failed for ``CONFIRMED_AFTER`` without one that succeeded, so that a single failure among many
  calls that work changes nothing; at once if the failure is certain to last (the circuit breaker has opened, or a long
  call had no response while no other call was accepted).
* *Up* at the first call that succeeds.
* While it is down, ``remind`` reports it again every ``REPEATED_EVERY``, and a new cause after ``CHANGED_AFTER``.

There is no timer and no task: ``ReadinessWatch`` checks each part every few seconds, and more often while one fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

CONFIRMED_AFTER: Final = 2.0
"""Seconds."""
REPEATED_EVERY: Final = 60.0
"""Seconds."""
CHANGED_AFTER: Final = 5.0
"""Seconds between two reports with different causes, which may alternate."""


class OutageListener(Protocol):
    """Where an outage is reported. The methods must not raise or block."""

    def down(self, cause: str, reason: str, lasted: timedelta | None) -> None:
        """Report that the part is down; ``lasted`` is ``None`` for the first time."""
        ...

    def up(self, cause: str, reason: str, lasted: timedelta) -> None:
        """Report that it works again, and what was wrong last."""
        ...


class Outage:
    """The state of one part.

    Attributes:
        is_failing: whether the last call failed. A caller whose call succeeded looks at this only.
        is_down: see above.
        cause, reason: of the last failure.
    """

    def __init__(
        self, listener: OutageListener | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Start as a part that works. Without a listener nothing is reported."""
        self.is_failing = False
        self.is_down = False
        self.cause = ""
        self._listener = listener
        self._monotonic = monotonic
        self.reason = ""
        self._began = 0.0
        self._reported = 0.0
        self._reported_cause = ""

    @property
    def shown(self) -> str:
        """The cause and the reason, for readiness."""
        return f"{self.cause}: {self.reason}"

    def failed(self, cause: str, reason: str, *, is_certain: bool = False) -> None:
        """Note that a call failed. ``reason`` is a sentence for the operator, without secrets."""
        now = self._monotonic()
        if not self.is_failing:
            self.is_failing, self._began = True, now
        self.cause, self.reason = cause, reason
        if self.is_down:
            self.remind()
        elif is_certain or now - self._began >= CONFIRMED_AFTER:
            self.is_down = True
            self._report(None)

    def succeeded(self) -> None:
        """Note that a call succeeded."""
        if self.is_down and self._listener is not None:
            self._listener.up(self.cause, self.reason, timedelta(seconds=self._monotonic() - self._began))
        self.is_failing = self.is_down = False

    def remind(self) -> None:
        """Report it again if it is down and the last report is old, or has another cause."""
        pause = REPEATED_EVERY if self.cause == self._reported_cause else CHANGED_AFTER
        if self.is_down and self._monotonic() - self._reported >= pause:
            self._report(timedelta(seconds=self._monotonic() - self._began))

    def _report(self, lasted: timedelta | None) -> None:
        self._reported, self._reported_cause = self._monotonic(), self.cause
        if self._listener is not None:
            self._listener.down(self.cause, self.reason, lasted)
