"""Calls to a key service over the network: few at a time, within a deadline, repeated only where that helps.

Rules:

* The deadline is one operation's: the wait for a place, every attempt and every pause are inside of it.
* A service's quota is kept by bounding what is under way at once. A pause holds no place.
* Repeated is what the service did not take up: it throttles, it fails on its own account (5xx), or it closed the
  connection without an answer. Nothing else, for it would fail again: a refusal, a key that is gone, a network that
  is down, an answer that does not come.
* Pauses double and are jittered, so that replicas that were throttled together do not come back together. A pause that
  would outlast the deadline ends the operation at once with what is known.
* Being cancelled passes through.

The vendor's client has no retries of its own beside these. What it raises is told apart by a function that the backend
brings (``Explain``): one table for each vendor.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeVar

from signer.domain.errors import ErrorCode, Unavailable

_T = TypeVar("_T")


class Trouble(Enum):
    """Whose trouble it is, which says what to do about it."""

    BUSY = auto()
    """The service's, and it passes: it is repeated."""
    SERVICE = auto()
    """The service's or ours as a whole: it is down, out of reach, or does not accept who we are."""
    KEY = auto()
    """One key's: it is gone, disabled, of another kind, or not ours to use."""


_RETRY_AFTER: Final = {Trouble.BUSY: 1.0, Trouble.SERVICE: 5.0, Trouble.KEY: 30.0}


class RemoteFailure(Exception):
    """A call has failed for good.

    Attributes:
        reason: a sentence without its full stop, without a secret and without the vendor's own text.
        trouble: whose it is.
    """

    def __init__(self, reason: str, trouble: Trouble) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trouble = trouble

    def as_unavailable(self) -> Unavailable:
        """Say it as a key's ``sign`` does."""
        return Unavailable(
            ErrorCode.KEY_BACKEND_UNAVAILABLE,
            f"{self.reason[:1].upper()}{self.reason[1:]}; nothing was signed.",
            retry_after=_RETRY_AFTER[self.trouble],
        )


Explain = Callable[[Exception], RemoteFailure]
"""Makes a vendor's exception ours; what it does not know becomes a failure, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """How often, and after which pauses.

    Attributes:
        attempts: the greatest number of them, the first included.
        first_pause: before the second attempt, in seconds; it doubles with each one, and is jittered to between half
            and all of it.
        longest_pause: the cap on that.
        jitter: gives 0 … 1.
    """

    attempts: int = 4
    first_pause: float = 0.1
    longest_pause: float = 1.0
    jitter: Callable[[], float] = random.random

    def pause_after(self, attempt: int) -> float:
        """Give the pause behind attempt number ``attempt``, in seconds."""
        doubled: float = self.first_pause * 2 ** (attempt - 1)
        return min(doubled, self.longest_pause) * (0.5 + self.jitter() / 2)


class RemoteCalls:
    """The way to one service, for all of a backend's calls."""

    def __init__(
        self,
        service: str,
        explain: Explain,
        *,
        concurrency: int,
        timeout: float,
        repetition: Repetition | None = None,
    ) -> None:
        """Set the bounds.

        Args:
            service: its name, for sentences.
            explain: makes the vendor's exceptions ours.
            concurrency: how many attempts are under way at once.
            timeout: the deadline of one operation, in seconds.
            repetition: how often, and after which pauses.
        """
        self._service = service
        self._explain = explain
        self._concurrency = concurrency
        self._timeout = timeout
        self._repetition = repetition or Repetition()
        self._places = asyncio.Semaphore(concurrency)

    async def run(self, call: Callable[[], Awaitable[_T]], *, timeout: float | None = None) -> _T:
        """Make a call.

        Args:
            call: one attempt.
            timeout: the deadline of this operation, where it is another than usual.

        Raises:
            RemoteFailure: it failed for good, or the deadline has come.
        """
        timeout = self._timeout if timeout is None else timeout
        begun = asyncio.get_running_loop().time()
        deadline = begun + timeout
        known = RemoteFailure(f"{self._service} had no place for another call within {timeout:g} s", Trouble.BUSY)
        silence = RemoteFailure(f"{self._service} did not answer within {timeout:g} s", Trouble.SERVICE)
        attempt = 0
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    async with self._places:
                        attempt += 1
                        if attempt == 1 and asyncio.get_running_loop().time() - begun < timeout / 2:
                            known = silence  # else most of the time went into waiting for the place
                        try:
                            return await call()
                        except Exception as exc:  # noqa: BLE001 - each vendor has its own tree
                            failure, cause = self._explain(exc), exc
                    pause = self._repetition.pause_after(attempt)
                    out_of_time = asyncio.get_running_loop().time() + pause >= deadline
                    if failure.trouble is not Trouble.BUSY or attempt >= self._repetition.attempts or out_of_time:
                        raise failure from cause
                    known = failure
                    await asyncio.sleep(pause)
        except TimeoutError as exc:
            raise known from exc

    async def for_each(self, items: Iterable[_T], work: Callable[[_T], Awaitable[None]]) -> None:
        """Do some work for each item, as many at once as there are places, so that none waits for its place for long.

        Raises:
            RemoteFailure: the first that the work has raised; the rest is given up.
        """
        waiting = iter(items)

        async def take_turns() -> None:
            for item in waiting:
                await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(take_turns())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
