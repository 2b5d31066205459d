from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.adapters.card_api.read_retries import ReadRetries
from signer.adapters.card_api.results import Failure
from signer.application.backoff import Backoff
from signer.domain.errors import ErrorCode

MS = timedelta(milliseconds=1)
TRANSIENT = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", transient=True)


def retries(attempts: int = 5) -> ReadRetries:
    """Pauses from 1 ms to 8 ms, without jitter."""
    return ReadRetries(attempts=attempts, backoff=Backoff(first_pause=MS, longest_pause=8 * MS), jitter=lambda: 1.0)


class Attempts:
    """Returns the given failures, then a success."""

    def __init__(self, *failures: Failure) -> None:
        self._failures = list(failures)
        self.made = 0

    async def __call__(self) -> str | Failure:
        """Make one attempt."""
        self.made += 1
        return self._failures.pop(0) if self._failures else "done"


def deadline() -> float:
    """A minute from now."""
    return asyncio.get_running_loop().time() + 60


async def test_transient_failures_are_retried_until_success() -> None:
    """The caller does not see them."""
    attempts = Attempts(TRANSIENT, TRANSIENT)
    assert await retries().run(deadline(), attempts) == "done"
    assert attempts.made == 3


async def test_lasting_failure_ends_retries() -> None:
    """At once."""
    lasting = Failure(code=ErrorCode.CUSTOMER_UNKNOWN, detail="why")
    attempts = Attempts(TRANSIENT, lasting)
    assert await retries().run(deadline(), attempts) == lasting
    assert attempts.made == 2


async def test_failure_of_last_attempt_is_not_transient() -> None:
    """A caller with retries of its own does not repeat it."""
    attempts = Attempts(*[TRANSIENT] * 9)
    result = await retries(attempts=3).run(deadline(), attempts)
    assert result == Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", transient=False)
    assert attempts.made == 3


async def test_pause_that_outlasts_deadline_ends_retries() -> None:
    """The known failure is returned instead of a timeout."""
    requested = timedelta(hours=1)
    attempts = Attempts(
        Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", transient=True, retry_after=requested)
    )
    result = await retries().run(deadline(), attempts)
    assert isinstance(result, Failure)
    assert (result.retry_after, attempts.made) == (requested, 1)


@pytest.mark.parametrize(("requested", "pauses"), [(None, [1, 2, 4, 8]), (7 * MS, [8, 9, 11, 15])])
async def test_pauses_double_and_start_after_retry_after(
    monkeypatch: pytest.MonkeyPatch, requested: timedelta | None, pauses: list[int]
) -> None:
    """``Retry-After`` is a lower bound; the pause on top of it keeps callers apart."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    failure = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", transient=True, retry_after=requested)
    await retries().run(deadline(), Attempts(*[failure] * 4))
    assert [round(seconds * 1000) for seconds in slept] == pauses
