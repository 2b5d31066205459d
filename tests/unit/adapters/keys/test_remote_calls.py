"""Calls to a service over the network: what is repeated, after which pauses, and what holds a place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from signer.adapters.keys.remote_calls import RemoteCalls, RemoteFailure, Repetition, Trouble
from signer.domain.errors import ErrorCode


class VendorError(Exception):
    """What a vendor's library raises."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__("secret of the vendor's")
        self.trouble = trouble


def explain(exc: Exception) -> RemoteFailure:
    """Make it ours."""
    trouble = exc.trouble if isinstance(exc, VendorError) else Trouble.SERVICE
    return RemoteFailure(f"the service has trouble ({trouble.name})", trouble)


def calls(concurrency: int = 2, *, timeout: float = 30, attempts: int = 4) -> RemoteCalls:
    """The way to a service, with pauses of almost nothing."""
    repetition = Repetition(attempts=attempts, first_pause=0.001, longest_pause=0.002)
    return RemoteCalls("The service", explain, concurrency=concurrency, timeout=timeout, repetition=repetition)


def failing(times: int, trouble: Trouble) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """A call that fails so many times, and the list of its attempts."""
    attempts: list[int] = []

    async def call() -> str:
        attempts.append(1)
        if len(attempts) <= times:
            raise VendorError(trouble)
        return "answer"

    return call, attempts


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_a_busy_service_is_asked_again(times: int) -> None:
    """Up to four attempts, and the answer of the last."""
    call, attempts = failing(times, Trouble.BUSY)
    assert await calls().run(call) == "answer"
    assert len(attempts) == times + 1


async def test_a_service_that_stays_busy_is_given_up() -> None:
    """After the last attempt its trouble is ours, with the vendor's error as the cause."""
    call, attempts = failing(99, Trouble.BUSY)
    with pytest.raises(RemoteFailure, match="BUSY") as failed:
        await calls().run(call)
    assert len(attempts) == 4
    assert isinstance(failed.value.__cause__, VendorError)


@pytest.mark.parametrize("trouble", [Trouble.SERVICE, Trouble.KEY])
async def test_nothing_else_is_asked_again(trouble: Trouble) -> None:
    """A refusal stays one."""
    call, attempts = failing(1, trouble)
    with pytest.raises(RemoteFailure, match=trouble.name):
        await calls().run(call)
    assert len(attempts) == 1


@pytest.mark.parametrize(("jitter", "pauses"), [(0.0, [0.5, 1, 2, 2, 2]), (1.0, [1, 2, 4, 4, 4])])
def test_pauses_double_up_to_the_longest_and_are_jittered(jitter: float, pauses: list[float]) -> None:
    """Between half and all of 1, 2, 4, 4, 4 s."""
    repetition = Repetition(first_pause=1, longest_pause=4, jitter=lambda: jitter)
    assert [repetition.pause_after(attempt) for attempt in range(1, 6)] == pauses


async def test_a_pause_that_would_outlast_the_deadline_ends_it_at_once() -> None:
    """What is known is said now rather than at the deadline."""
    repetition = Repetition(first_pause=3600, longest_pause=3600)
    way = RemoteCalls("The service", explain, concurrency=1, timeout=60, repetition=repetition)
    call, attempts = failing(99, Trouble.BUSY)
    with pytest.raises(RemoteFailure, match="BUSY"):
        await way.run(call)
    assert len(attempts) == 1


async def test_silence_ends_at_the_deadline() -> None:
    """An attempt that hangs is cut off, and is not repeated."""
    with pytest.raises(RemoteFailure, match=r"The service did not answer within 0\.05 s") as failed:
        await calls().run(asyncio.Event().wait, timeout=0.05)
    assert failed.value.trouble is Trouble.SERVICE


async def test_a_timeout_of_the_vendors_own_is_the_vendors() -> None:
    """It is explained like everything that the vendor raises."""

    async def call() -> None:
        raise TimeoutError

    with pytest.raises(RemoteFailure, match="SERVICE"):
        await calls().run(call)


async def test_a_pause_holds_no_place() -> None:
    """With one place, another call is answered while the first is between two attempts."""
    way = RemoteCalls(
        "The service", explain, concurrency=1, timeout=60, repetition=Repetition(first_pause=30, longest_pause=30)
    )
    has_failed = asyncio.Event()

    async def call() -> None:
        has_failed.set()
        raise VendorError(Trouble.BUSY)

    pausing = asyncio.create_task(way.run(call))
    await has_failed.wait()
    other, _ = failing(0, Trouble.BUSY)
    assert await way.run(other) == "answer"
    assert not pausing.done()
    pausing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pausing


async def test_for_each_takes_as_many_at_once_as_there_are_places() -> None:
    """All items are done, two at a time, in their order."""
    begun: list[int] = []
    under_way = peak = 0

    async def work(item: int) -> None:
        nonlocal under_way, peak
        begun.append(item)
        under_way += 1
        peak = max(peak, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    await calls(2).for_each(range(9), work)
    assert begun == list(range(9))
    assert peak == 2


async def test_for_each_gives_up_with_the_first_failure() -> None:
    """The failure is its own, with its cause, and what has not begun does not begin."""
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            call, _ = failing(1, Trouble.KEY)
            await calls().run(call)
        await asyncio.Event().wait()

    with pytest.raises(RemoteFailure, match="KEY") as failed:
        await calls(2).for_each(range(9), work)
    assert isinstance(failed.value.__cause__, VendorError)
    assert begun == [0, 1]


@pytest.mark.parametrize("trouble", Trouble)
def test_a_failure_is_said_as_unavailable(trouble: Trouble) -> None:
    """A sentence, a code, a time to come back, and nothing of the vendor's."""
    error = explain(VendorError(trouble)).as_unavailable()
    assert error.code is ErrorCode.KEY_BACKEND_UNAVAILABLE
    assert error.detail == f"The service has trouble ({trouble.name}); nothing was signed."
    assert error.retry_after >= 1
