from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.adapters.card_api.read_retries import Repetition
from signer.adapters.card_api.upstream_result import Failure
from signer.domain.errors import ErrorCode

MS = timedelta(milliseconds=1)
PASSING = Failure(ErrorCode.CARD_API_UNAVAILABLE, "why", transient=True)


def repetition(jitter: float = 1.0, attempts: int = 5) -> Repetition:
    """Pauses from 1 ms to 8 ms, with the jitter that a test wants."""
    return Repetition(attempts=attempts, first_pause=MS, longest_pause=8 * MS, jitter=lambda: jitter)


class Attempts:
    """Fails as often as it is told, then succeeds."""

    def __init__(self, *failures: Failure) -> None:
        self._failures = list(failures)
        self.made = 0

    async def __call__(self) -> str | Failure:
        """One attempt."""
        self.made += 1
        return self._failures.pop(0) if self._failures else "done"


@pytest.mark.parametrize(("attempt", "pause"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (10_000, 8)])
def test_pauses_double_up_to_the_longest(attempt: int, pause: int) -> None:
    """However many attempts there were."""
    assert repetition().pause_after(attempt, None) == pause * MS


def test_pauses_are_jittered_to_between_half_and_all_of_it() -> None:
    """So that those who failed together do not come back together."""
    assert repetition(jitter=0.0).pause_after(3, None) == 2 * MS
    assert repetition(jitter=0.5).pause_after(3, None) == 3 * MS


def test_what_the_api_asks_for_comes_first() -> None:
    """``Retry-After`` is a lower bound, and jittered above it too."""
    asked = timedelta(seconds=7)
    assert repetition(jitter=0.0).pause_after(1, asked) == asked + MS / 2
    assert repetition(jitter=1.0).pause_after(1, asked) == asked + MS


async def test_it_goes_on_until_it_succeeds() -> None:
    """Failures that pass are not seen."""
    attempts = Attempts(PASSING, PASSING)
    assert await repetition().until(asyncio.get_running_loop().time() + 60, attempts) == "done"
    assert attempts.made == 3


async def test_it_ends_with_a_failure_that_does_not_pass() -> None:
    """At once."""
    lasting = Failure(ErrorCode.CUSTOMER_UNKNOWN, "why")
    attempts = Attempts(PASSING, lasting)
    assert await repetition().until(asyncio.get_running_loop().time() + 60, attempts) == lasting
    assert attempts.made == 2


async def test_it_ends_after_the_last_attempt() -> None:
    """What it gives is final, so that nobody around it repeats the whole."""
    attempts = Attempts(*[PASSING] * 9)
    outcome = await repetition(attempts=3).until(asyncio.get_running_loop().time() + 60, attempts)
    assert outcome == Failure(ErrorCode.CARD_API_UNAVAILABLE, "why", transient=False)
    assert attempts.made == 3


async def test_it_does_not_sleep_past_its_deadline() -> None:
    """A pause for which there is no time ends it with what is known, instead of a timeout."""
    asked = timedelta(hours=1)
    attempts = Attempts(Failure(ErrorCode.CARD_API_UNAVAILABLE, "why", transient=True, retry_after=asked))
    outcome = await repetition().until(asyncio.get_running_loop().time() + 60, attempts)
    assert isinstance(outcome, Failure)
    assert (outcome.retry_after, attempts.made) == (asked, 1)
