"""Whether the card API works for us, by the results of calls, for the log and for readiness.

* Readiness makes a call of its own if no call within ``EVIDENCE_LASTS`` has shown that our credentials are accepted.
  There are three reasons: a call may be refused for a reason that concerns only its customer; a replica that is not
  ready gets no requests that could show that it works again; a replica without requests must notice that a key was
  replaced.
* Its call goes on if a check ends before it: it has ``OWN_CALL_WITHIN``, and only a response within that time ends an
  outage. So a slow card API is either down or not, and does not alternate with each call.
* Its success does not end an outage while another call fails: the card API may fail for that call only.
* A 403 to it may mean that there is no such customer: it is only shown, unless the last other call was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from signer.adapters.card_api.access_token import NO_TOKEN
from signer.adapters.card_api.http_transport import HttpTransport
from signer.adapters.card_api.results import CallResult, Failure, ParsedCall, UpstreamResponse
from signer.adapters.card_api.unusable_responses import credentials_accepted, is_readable
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.application.outage import Outage
from signer.domain.errors import ErrorCode

OWN_CALL_INTERVAL: Final = timedelta(seconds=5)
"""Between two calls of readiness: short for an operator who has corrected a key, and no load."""
EVIDENCE_LASTS: Final = timedelta(seconds=6)
"""So that an outage is named within 15 s, also without any request. The next check is at most 4 s after these 6 s. If
the card API hangs, that is certain ``OWN_CALL_WITHIN`` later: 6 + 4 + 5 = 15 s. If it refuses our credentials, a second
call, at most 3 s after the first, confirms it: 6 + 4 + 3 = 13 s."""
OWN_CALL_WITHIN: Final = timedelta(seconds=5)
"""At most ``card_api.request_timeout``."""
_WHILE_FAILING: Final = timedelta(seconds=1)


class CardApiHealth:
    """What the results of calls show.

    Args:
        outage: where failures are noted.
        read_sample: makes readiness's own call until a deadline.
    """

    def __init__(
        self,
        outage: Outage,
        transport: HttpTransport,
        clock: UpstreamClock,
        read_sample: Callable[[], Awaitable[ParsedCall[str]]],
        monotonic: Callable[[], float],
    ) -> None:
        self._outage = outage
        self._transport = transport
        self._clock = clock
        self._read_sample = read_sample
        self._monotonic = monotonic
        self._are_credentials_accepted: bool | None = None  # by the last call that shows it
        self._evidence_ends = 0.0
        self._own_call: asyncio.Task[None] | None = None
        self._own_call_began = float("-inf")
        self._refusal: Failure | None = None  # of the own call
        self._trouble: Failure | None = None  # of the own call, if it has no usable response
        self._other_call_failed = float("-inf")

    def note(self, result: object, parsed: object = None, *, is_own: bool = False) -> None:
        """Note whether the card API works, by one call and what its response was parsed as.

        A timeout of readiness's own call is certain to be an outage if no other call was accepted meanwhile.
        """
        now = self._monotonic()
        failure = parsed if isinstance(parsed, Failure) else result if isinstance(result, Failure) else None
        is_paused = self._transport.is_suspended_by_breaker
        if failure is not None and failure.cause is not None:
            if not is_own:
                self._other_call_failed = now
            is_alone = is_own and failure.cause == "timeout" and now >= self._evidence_ends
            self._outage.failed(failure.cause, failure.detail, is_certain=is_paused or is_alone)
        elif self._outage.is_failing and not is_paused and isinstance(result, UpstreamResponse):
            is_quick = result.took <= OWN_CALL_WITHIN.total_seconds()
            fails_elsewhere = is_own and now < self._other_call_failed + OWN_CALL_INTERVAL.total_seconds()
            if is_quick and is_readable(result) and not fails_elsewhere:
                self._outage.succeeded()

    def remember_credentials(self, result: CallResult) -> bool | None:
        """Return whether the call shows that our credentials are accepted, and remember it."""
        accepted = credentials_accepted(result)
        if accepted is not None:
            self._are_credentials_accepted = accepted
            self._evidence_ends = self._monotonic() + EVIDENCE_LASTS.total_seconds()
        if accepted:
            self._refusal = self._trouble = None
        return accepted

    def explain(self, failure: Failure) -> Failure:
        """Return why there is no token: while it is being fetched, the outage says more than that it takes long."""
        if failure is NO_TOKEN and self._outage.is_failing:
            return replace(failure, detail=self._outage.shown)
        return failure

    async def check(self, deadline: float) -> str | None:
        """See ``CardApi.check``; wait for the own call until ``deadline``."""
        await self._make_own_call_if_due(deadline)
        suspension, skew = self._transport.suspension(), self._clock.skew
        warnings: list[str] = []
        if suspension is not None:
            warnings.append(f"{suspension.detail.removesuffix('.')}; signatures wait for delivery")
        elif self._trouble is not None:
            warnings.append(self._trouble.shown.removesuffix("."))
        elif self._outage.is_down:
            warnings.append(self._outage.shown.removesuffix("."))
        if self._refusal is not None:
            said = self._refusal.detail.removesuffix(".")  # the outage's reason may be the same sentence
            others = (warning for warning in warnings if said not in warning)
            raise replace(self._refusal, detail="; ".join((said, *others))).error()
        if skew is not None and self._clock.is_skewed:
            seconds = round(abs(skew).total_seconds())
            warnings.append(f"its clock is {seconds} s {'ahead of' if skew > timedelta(0) else 'behind'} ours")
        return "; ".join(warnings) or None

    async def aclose(self) -> None:
        """Cancel a running call."""
        if self._own_call is not None:
            self._own_call.cancel()
            await asyncio.wait({self._own_call})

    async def _make_own_call_if_due(self, deadline: float) -> None:
        now, is_failing = self._monotonic(), self._outage.is_failing
        is_shown = self._are_credentials_accepted and now < self._evidence_ends and not is_failing
        pause = (_WHILE_FAILING if is_failing else OWN_CALL_INTERVAL).total_seconds()
        if self._own_call is None and not is_shown and now >= self._own_call_began + pause:
            self._own_call_began = now
            self._own_call = asyncio.create_task(self._make_own_call(), name="card-api-readiness")
        call = self._own_call
        if call is not None:
            await asyncio.wait({call}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
            if call.done():
                self._own_call = None
                call.result()

    async def _make_own_call(self) -> None:
        call = await self._read_sample()
        result, status = call.result, call.parsed
        counts = result.status != HTTPStatus.FORBIDDEN or self._are_credentials_accepted is False
        self.note(result, status if counts else None, is_own=True)
        failure = status if isinstance(status, Failure) and status.code is not ErrorCode.CUSTOMER_UNKNOWN else None
        is_refused = counts and self.remember_credentials(result) is False
        if is_refused:
            self._refusal = failure
        is_shown = failure is not None and failure.cause is not None and not is_refused
        self._trouble = failure if is_shown else None
