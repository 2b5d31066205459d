"""Short deadlines for calls to a store, only while a test expects that no response comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from signer.adapters.redis_store.challenge_store import RedisChallengeStore


@contextmanager
def short_deadlines(store: RedisChallengeStore, seconds: float) -> Iterator[None]:
    """Let calls fail after this time, as with a short ``command_timeout``; calls before and after have their own."""
    calls = store._redis
    before = calls._timeout
    calls._timeout = seconds
    try:
        yield
    finally:
        calls._timeout = before
