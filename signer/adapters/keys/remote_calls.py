"""Calls to a key service over the network, with limited concurrency, a deadline and retries.

* The deadline covers the whole call: waiting for a free slot, every attempt and every pause.
* Limited concurrency keeps the service's quota. A call that pauses between two attempts does not hold a slot.
* Only a transient failure is retried: throttling, a 5xx, or a connection closed without a response.
* A pause that would end after the deadline ends the call at once.
* Cancellation passes through.

The vendor's client must not retry by itself. A backend passes a function that classifies the vendor's exceptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from enum import Enum, auto
from typing import Final, TypeVar

from signer.application.backoff import Backoff
from signer.domain.errors import ErrorCode, Unavailable

_T = TypeVar("_T")

_MAX_ATTEMPTS: Final = 4
BACKOFF: Final = Backoff(first_pause=timedelta(milliseconds=100), longest_pause=timedelta(seconds=1))


class FailureKind(Enum):
    """What a failure affects."""

    TRANSIENT = auto()
    """The service is busy or had an error: the call is retried."""
    SERVICE = auto()
    """The service is down or unreachable, or does not accept our credentials."""
    KEY = auto()
    """One key is gone, disabled, of another kind, or not allowed for us."""


_RETRY_AFTER: Final = {FailureKind.TRANSIENT: 1.0, FailureKind.SERVICE: 5.0, FailureKind.KEY: 30.0}


class RemoteFailure(Exception):
    """A call has failed for good.

    Attributes:
        reason: a sentence without its full stop, without secrets and without the vendor's text.
        kind: what the failure affects.
        cause: one stable word for why.
    """

    def __init__(self, reason: str, kind: FailureKind, cause: str = "error") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.cause = cause

    def as_unavailable(self) -> Unavailable:
        """Return the error that a key's ``sign`` raises."""
        return Unavailable(
            ErrorCode.KEY_BACKEND_UNAVAILABLE,
            f"{self.reason[:1].upper()}{self.reason[1:]}; nothing was signed.",
            retry_after=_RETRY_AFTER[self.kind],
            cause=self.cause,
        )


Classify = Callable[[Exception], RemoteFailure]
"""Converts any exception of the vendor's client."""


class RemoteCalls:
    """All calls of one backend to one service."""

    def __init__(
        self,
        service: str,
        classify: Classify,
        *,
        concurrency: int,
        timeout: float,
        backoff: Backoff = BACKOFF,
    ) -> None:
        """Set the limits; ``timeout`` is the deadline of one call in seconds, ``service`` a name for error texts."""
        self._service = service
        self._classify = classify
        self._concurrency = concurrency
        self._timeout = timeout
        self._backoff = backoff
        self._slots = asyncio.Semaphore(concurrency)

    async def run(self, call: Callable[[], Awaitable[_T]], *, timeout: float | None = None) -> _T:
        """Call until an attempt succeeds.

        Args:
            call: makes one attempt.
            timeout: the deadline, if it differs from the usual one.

        Raises:
            RemoteFailure: the call failed for good, or its deadline has passed.
        """
        timeout = self._timeout if timeout is None else timeout
        now = asyncio.get_running_loop().time
        started = now()
        deadline = started + timeout
        last = RemoteFailure(
            f"{self._service} had no free slot for another call within {timeout:g} s", FailureKind.TRANSIENT, "timeout"
        )
        attempt = 0
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    async with self._slots:
                        attempt += 1
                        if attempt == 1 and now() - started < timeout / 2:  # else the wait for a slot is to blame
                            last = RemoteFailure(
                                f"{self._service} did not respond within {timeout:g} s", FailureKind.SERVICE, "timeout"
                            )
                        try:
                            return await call()
                        except Exception as exc:  # noqa: BLE001 - each vendor has its own exceptions
                            failure, cause = self._classify(exc), exc
                    pause = self._backoff.pause_after(attempt).total_seconds()
                    is_final = failure.kind is not FailureKind.TRANSIENT or attempt >= _MAX_ATTEMPTS
                    if is_final or now() + pause >= deadline:
                        raise failure from cause
                    last = failure
                    await asyncio.sleep(pause)
        except TimeoutError as exc:
            raise last from exc

    async def for_each(self, items: Iterable[_T], work: Callable[[_T], Awaitable[None]]) -> None:
        """Run ``work`` for each item, as many at once as there are slots.

        Raises:
            RemoteFailure: the first failure; the other items are abandoned.
        """
        waiting = iter(items)

        async def work_in_turn() -> None:
            for item in waiting:
                await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work_in_turn())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
