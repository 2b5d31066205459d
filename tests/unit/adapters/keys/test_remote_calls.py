"""Calls to a service over the network: retries, pauses, deadlines and concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from signer.adapters.keys.remote_calls import FailureKind, RemoteCalls, RemoteFailure
from signer.application.backoff import Backoff
from signer.domain.errors import ErrorCode


class VendorError(Exception):
    """An exception of a vendor's client."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__("the vendor's secret")
        self.kind = kind


def classify(exc: Exception) -> RemoteFailure:
    """Convert a vendor's exception."""
    kind = exc.kind if isinstance(exc, VendorError) else FailureKind.SERVICE
    return RemoteFailure(f"the service failed ({kind.name})", kind)


def remote_calls(concurrency: int = 2, *, pause: float = 0.001) -> RemoteCalls:
    """Create calls whose pauses are ``pause`` seconds or a little less."""
    backoff = Backoff(first_pause=timedelta(seconds=pause), longest_pause=timedelta(seconds=pause))
    return RemoteCalls("The service", classify, concurrency=concurrency, timeout=60, backoff=backoff)


def failing(times: int, kind: FailureKind) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """Return a call that fails ``times`` times, and the list of its attempts."""
    attempts: list[int] = []

    async def call() -> str:
        attempts.append(1)
        if len(attempts) <= times:
            raise VendorError(kind)
        return "response"

    return call, attempts


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_transient_failure_is_retried(times: int) -> None:
    """Up to four attempts; the last one's response is returned."""
    call, attempts = failing(times, FailureKind.TRANSIENT)
    assert await remote_calls().run(call) == "response"
    assert len(attempts) == times + 1


async def test_call_fails_after_four_attempts() -> None:
    """The vendor's error is the cause."""
    call, attempts = failing(99, FailureKind.TRANSIENT)
    with pytest.raises(RemoteFailure, match="TRANSIENT") as failed:
        await remote_calls().run(call)
    assert len(attempts) == 4
    assert isinstance(failed.value.__cause__, VendorError)


@pytest.mark.parametrize("kind", [FailureKind.SERVICE, FailureKind.KEY])
async def test_other_failure_is_not_retried(kind: FailureKind) -> None:
    """There is one attempt only."""
    call, attempts = failing(1, kind)
    with pytest.raises(RemoteFailure, match=kind.name):
        await remote_calls().run(call)
    assert len(attempts) == 1


async def test_pause_beyond_deadline_ends_call_at_once() -> None:
    """The last failure is raised now and not at the deadline."""
    call, attempts = failing(99, FailureKind.TRANSIENT)
    with pytest.raises(RemoteFailure, match="TRANSIENT"):
        await remote_calls(pause=3600).run(call)
    assert len(attempts) == 1


async def test_attempt_without_response_ends_at_deadline() -> None:
    """It is not retried."""
    with pytest.raises(RemoteFailure, match=r"The service did not respond within 0\.05 s") as failed:
        await remote_calls().run(asyncio.Event().wait, timeout=0.05)
    assert failed.value.kind is FailureKind.SERVICE


async def test_timeout_error_of_vendor_is_classified() -> None:
    """It is not taken for the deadline of the call."""

    async def call() -> None:
        raise TimeoutError

    with pytest.raises(RemoteFailure, match="SERVICE"):
        await remote_calls().run(call)


async def test_pausing_call_holds_no_slot() -> None:
    """With one slot, another call succeeds while the first pauses between two attempts."""
    calls, has_failed = remote_calls(1, pause=30), asyncio.Event()

    async def call() -> None:
        has_failed.set()
        raise VendorError(FailureKind.TRANSIENT)

    pausing = asyncio.create_task(calls.run(call))
    await has_failed.wait()
    other, _ = failing(0, FailureKind.TRANSIENT)
    assert await calls.run(other) == "response"
    assert not pausing.done()
    pausing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pausing


async def test_call_that_gets_no_slot_says_so() -> None:
    """Waiting for a slot counts against the deadline, and the service is not blamed."""
    calls = remote_calls(1)
    blocking = asyncio.create_task(calls.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    with pytest.raises(RemoteFailure, match=r"had no free slot for another call within 0\.05 s") as failed:
        await calls.run(asyncio.Event().wait, timeout=0.05)
    assert failed.value.kind is FailureKind.TRANSIENT
    blocking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blocking


async def test_for_each_runs_as_many_items_at_once_as_slots() -> None:
    """All items are done, two at a time, in their order."""
    started: list[int] = []
    running = peak = 0

    async def work(item: int) -> None:
        nonlocal running, peak
        started.append(item)
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    await remote_calls(2).for_each(range(9), work)
    assert started == list(range(9))
    assert peak == 2


async def test_for_each_stops_at_first_failure() -> None:
    """The failure keeps its cause, and no further item is started."""
    started: list[int] = []

    async def work(item: int) -> None:
        started.append(item)
        if item == 1:
            call, _ = failing(1, FailureKind.KEY)
            await remote_calls().run(call)
        await asyncio.Event().wait()

    with pytest.raises(RemoteFailure, match="KEY") as failed:
        await remote_calls(2).for_each(range(9), work)
    assert isinstance(failed.value.__cause__, VendorError)
    assert started == [0, 1]


@pytest.mark.parametrize("kind", FailureKind)
def test_failure_becomes_unavailable(kind: FailureKind) -> None:
    """With a sentence, a code and ``retry_after``, and without the vendor's text."""
    error = classify(VendorError(kind)).as_unavailable()
    assert error.code is ErrorCode.KEY_BACKEND_UNAVAILABLE
    assert error.detail == f"The service failed ({kind.name}); nothing was signed."
    assert error.retry_after >= 1
