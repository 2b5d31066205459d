"""The circuit breaker: stops calling the card API after repeated failures, and probes with one call at a time.

::

                 FAILURES_TO_OPEN failures in a row
     closed ─────────────────────────────────────────▶ open ◀────────┐
        ▲                                 the cool-down │            │ the probe fails:
        │ the probe succeeds                    is over ▼            │ the cool-down doubles
        └─────────────────────────────────────────── half-open ──────┘

* Closed: every call is admitted. Open: none. Half-open: one call, the probe; the others are suspended meanwhile.
* The result of a call counts only if the breaker has not changed its state since the call was admitted.
* A call without a result (cancelled, or too short to tell) counts for nothing; the next call can be the probe.
* ``suspend`` admits nothing for a requested time (``Retry-After``) without opening the breaker.

It has no timer, no task and no lock: it belongs to one event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from signer.adapters.card_api.results import Failure
from signer.application.backoff import Backoff
from signer.domain.errors import ErrorCode

FAILURES_TO_OPEN: Final = 5
"""Failures in a row: more than the attempts of one read, so that one read cannot open the breaker alone."""
COOL_DOWN: Final = Backoff(first_pause=timedelta(seconds=2), longest_pause=timedelta(seconds=30))
"""2 s is shorter than a caller waits. After a recovery the next probe starts within 30 s."""
PROBE_WAIT: Final = timedelta(seconds=1)
"""The shortest wait for the other calls while a probe is in flight."""

_SHORTEST: Final = timedelta.resolution.total_seconds()  # less would be a pause of 0
_NO_REASON: Final = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="The card API fails.")


class BreakerListener(Protocol):
    """Called when a breaker opens and closes. The methods must not raise or block."""

    def breaker_opened(self, *, opening: int, cool_down: timedelta, failure: Failure) -> None:
        """Report opening number ``opening`` since the breaker was last closed, and the failure of the last call."""
        ...

    def breaker_closed(self, *, openings: int, after: timedelta) -> None:
        """Report that the breaker closed: it opened ``openings`` times, first ``after`` ago."""
        ...


class CircuitBreaker:
    """Admits calls, and changes its state by their results."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        failures_to_open: int = FAILURES_TO_OPEN,
        cool_down: Backoff = COOL_DOWN,
        jitter: Callable[[], float] = random.random,
        listener: BreakerListener | None = None,
    ) -> None:
        """Create a closed breaker; the longest ``cool_down`` also limits ``suspend`` and ``Retry-After``."""
        self._monotonic = monotonic
        self._failures_to_open = failures_to_open
        self._cool_down = cool_down
        self._jitter = jitter
        self._listener = listener
        self._generation = 0  # grows with each change of state: results of older calls are ignored
        self._failures = 0  # in a row
        self._openings = 0  # since it was last closed
        self._first_opened = 0.0
        self._open_until = 0.0
        self._is_probing = False
        self._suspended_until = 0.0
        self._failure = _NO_REASON  # that opened it last

    @property
    def is_open(self) -> bool:
        """Whether it is open or half-open."""
        return self._openings > 0

    def suspension(self) -> Failure | None:
        """Return why a call would not be admitted now; ``None`` if it would. Changes nothing."""
        now = self._monotonic()
        requested = self._suspended_until - now
        open_for = self._open_until - now if self._openings else 0.0
        if self._is_probing:
            open_for = max(open_for, PROBE_WAIT.total_seconds())
        if max(requested, open_for) < _SHORTEST:
            return None
        retry_after = timedelta(seconds=max(requested, open_for))
        when = f"retry after {retry_after.total_seconds():.3g} s."
        if requested > open_for:
            detail = f"Paused at the card API's request; {when}"
        else:
            detail = f"{self._failure.shown} Paused after repeated card API failures; {when}"
        return Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail=detail, retry_after=retry_after)

    def admit(self) -> int | Failure:
        """Admit a call: return the breaker's generation, to pass to ``report``. Or return why it is not admitted."""
        suspension = self.suspension()
        if suspension is not None:
            return suspension
        self._is_probing = self._openings > 0
        return self._generation

    def suspend(self, requested: timedelta) -> None:
        """Admit nothing for ``requested``, at most for the longest cool-down."""
        until = self._monotonic() + min(requested, self._cool_down.longest_pause).total_seconds()
        self._suspended_until = max(self._suspended_until, until)

    def report(
        self,
        generation: int,
        *,
        succeeded: bool | None,
        failure: Failure | None = None,
    ) -> None:
        """Report an admitted call's result, once. ``succeeded`` is ``None`` if it shows nothing about the card API.

        ``failure`` says why the call failed, and for how long the card API asked for a pause.
        """
        if generation != self._generation:
            return
        if succeeded is None:
            self._is_probing = False
        elif succeeded:
            self._failures = 0
            if self._is_probing:
                self._close()
        else:
            self._failures += 1
            if self._is_probing or self._failures >= self._failures_to_open:
                self._open(failure or _NO_REASON)

    def _close(self) -> None:
        openings, after = self._openings, timedelta(seconds=self._monotonic() - self._first_opened)
        self._generation += 1
        self._openings = 0
        self._is_probing = False
        if self._listener is not None:
            self._listener.breaker_closed(openings=openings, after=after)

    def _open(self, failure: Failure) -> None:
        self._failure = failure
        now = self._monotonic()
        if not self._openings:
            self._first_opened = now
        self._generation += 1
        self._openings += 1
        self._is_probing = False
        cool_down = self._cool_down.pause_after(self._openings, self._jitter)
        if failure.retry_after is not None:
            cool_down = max(cool_down, min(failure.retry_after, self._cool_down.longest_pause))
        self._open_until = now + cool_down.total_seconds()
        if self._listener is not None:
            self._listener.breaker_opened(opening=self._openings, cool_down=cool_down, failure=failure)
