from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signer.application.backoff import Backoff

BACKOFF = Backoff(first_pause=timedelta(milliseconds=250), longest_pause=timedelta(seconds=30))
JITTER = st.floats(0, 1, exclude_max=True)


@given(
    attempt=st.integers(0, 10_000),
    jitter=JITTER,
    first=st.timedeltas(timedelta(0), timedelta(minutes=10)),
    longest=st.timedeltas(timedelta(0), timedelta(hours=1)),
)
@example(attempt=10_000, jitter=0.0, first=timedelta(minutes=10), longest=timedelta(hours=1))
def test_pause_is_between_half_of_the_first_and_the_longest(
    attempt: int, jitter: float, first: timedelta, longest: timedelta
) -> None:
    """However many attempts failed, no pause overflows."""
    pause = Backoff(first_pause=first, longest_pause=longest).pause_after(attempt, lambda: jitter)
    assert min(first, longest) / 2 <= pause <= longest


@given(attempt=st.integers(1, 100), jitter=JITTER)
def test_pause_grows_and_at_most_doubles(attempt: int, jitter: float) -> None:
    """With the same jitter, no pause is shorter than the one before, nor longer than twice that one."""
    pause, following = (BACKOFF.pause_after(number, lambda: jitter) for number in (attempt, attempt + 1))
    assert pause <= following <= 2 * pause + timedelta(microseconds=2)


@pytest.mark.parametrize(
    ("attempt", "jitter", "milliseconds"),
    [
        (1, 0.0, 125),
        (1, 1.0, 250),
        (2, 1.0, 500),
        (3, 1.0, 1000),
        (7, 1.0, 16_000),
        (8, 1.0, 30_000),
        (99, 0.0, 15_000),
    ],
)
def test_pause_doubles_up_to_the_longest(attempt: int, jitter: float, milliseconds: int) -> None:
    """From a quarter of a second to half a minute, jittered down to half of it."""
    assert BACKOFF.pause_after(attempt, lambda: jitter) == timedelta(milliseconds=milliseconds)
