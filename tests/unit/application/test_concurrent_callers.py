from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict, EventName
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord
from tests.unit.application.fake_system import LONG_TIMEOUT, OTHER_CUSTOMER, ZERO_TIMEOUT, FakeSystem, Replica

WITH_OR_WITHOUT_CHALLENGE = pytest.mark.parametrize(
    "has_challenge", [True, False], ids=["with_challenge", "without_challenge"]
)


async def check_in_progress(request: Coroutine[Any, Any, ChallengeRecord]) -> None:
    """Check that a request fails with ``challenge_in_progress``."""
    with pytest.raises(Unavailable) as error:
        await request
    assert (error.value.code, error.value.retry_after) == (ErrorCode.CHALLENGE_IN_PROGRESS, 1.0)


@WITH_OR_WITHOUT_CHALLENGE
async def test_fifty_equal_requests_share_one_signature_and_one_delivery(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """All get the same record."""
    challenge = system.issue_challenge()
    request = system.request(challenge if has_challenge else None)
    records = await asyncio.gather(*(replica.sign(request, within=LONG_TIMEOUT) for _ in range(50)))
    assert records == [system.record_of(challenge)] * 50
    assert records[0].state is ChallengeState.VERIFIED
    assert replica.store.journal.count("claim") == 1
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)
    assert not system.audit.events_named(EventName.TAKEN_OVER)


async def test_requests_at_five_replicas_share_one_signature_and_one_delivery(system: FakeSystem) -> None:
    """Half of them contain the challenge."""
    challenge = system.issue_challenge()
    replicas = [system.add_replica() for _ in range(5)]
    requests = [system.request(challenge), system.request()]
    records = await asyncio.gather(
        *(replicas[n % 5].sign(requests[n % 2], within=LONG_TIMEOUT) for n in range(50)),
    )
    assert records == [system.record_of(challenge)] * 50
    assert records[0].state is ChallengeState.VERIFIED
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


async def test_fifty_equal_requests_share_one_failure(system: FakeSystem, replica: Replica) -> None:
    """The key backend is called once."""
    challenge = system.issue_challenge()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The key backend is down.")
    request = system.request(challenge)
    calls = (replica.sign(request, within=LONG_TIMEOUT) for _ in range(50))
    assert await asyncio.gather(*calls, return_exceptions=True) == [system.key.failure] * 50
    assert system.key.asked == 1


async def test_cancelled_caller_does_not_cancel_shared_work(system: FakeSystem, replica: Replica) -> None:
    """The other caller gets the result."""
    challenge = system.issue_challenge()
    system.key.open.clear()
    cancelled_caller, other_caller = (
        asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT)) for _ in range(2)
    )
    await system.wait_until(lambda: system.key.asked == 1)
    cancelled_caller.cancel()
    await asyncio.wait({cancelled_caller})
    assert cancelled_caller.cancelled()
    system.key.open.set()
    assert (await other_caller).state is ChallengeState.VERIFIED


async def test_work_continues_without_callers(system: FakeSystem, replica: Replica) -> None:
    """The only caller disconnects during the POST; the record is settled."""
    challenge = system.issue_challenge()
    system.card_api.open.clear()
    cancelled_caller = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: bool(system.card_api.submitted))
    cancelled_caller.cancel()
    await asyncio.wait({cancelled_caller})
    system.card_api.open.set()
    await system.wait_until(lambda: system.has_state(challenge, ChallengeState.VERIFIED))
    assert len(system.card_api.submitted) == 1


@pytest.mark.usefixtures("no_unretrieved_errors")
async def test_next_request_starts_new_work_after_work_without_a_caller_failed(
    system: FakeSystem, replica: Replica
) -> None:
    """The caller has disconnected before the failure; the next request does not get it.

    The refusal is logged in the last step of the work. A request that comes before it joins the failing work.
    """
    challenge = system.issue_challenge()
    system.key.open.clear()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The key backend is down.")
    await check_in_progress(replica.sign(system.request(challenge), within=ZERO_TIMEOUT))
    system.key.open.set()
    await system.wait_until(lambda: bool(system.audit.events_named(EventName.REFUSED)))
    system.key.failure = None
    assert (await replica.sign(system.request(challenge), within=LONG_TIMEOUT)).state is ChallengeState.VERIFIED


async def test_request_gets_the_failure_of_the_work_that_it_joined(system: FakeSystem, replica: Replica) -> None:
    """The nonce is released already when the second request arrives."""
    challenge = system.issue_challenge()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The key backend is down.")
    released, may_end = asyncio.Event(), asyncio.Event()

    async def block_reply() -> None:
        released.set()
        await may_end.wait()

    replica.store.after["release"] = block_reply
    first = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await released.wait()
    assert system.has_state(challenge, ChallengeState.RELEASED)
    second = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await asyncio.sleep(0)
    may_end.set()
    assert list(await asyncio.gather(first, second, return_exceptions=True)) == [system.key.failure] * 2
    assert system.key.asked == 1


@pytest.mark.parametrize("refresh", [True, False])
@WITH_OR_WITHOUT_CHALLENGE
async def test_caller_whose_time_is_over_gets_signature_during_delivery(
    system: FakeSystem, replica: Replica, has_challenge: bool, refresh: bool
) -> None:
    """The delivery continues and the record is verified later."""
    challenge = system.issue_challenge()
    request = system.request(challenge if has_challenge else None, refresh=refresh)
    system.card_api.open.clear()
    work = asyncio.create_task(replica.sign(request, within=LONG_TIMEOUT))
    await system.wait_until(lambda: bool(system.card_api.submitted))
    early = await replica.sign(request, within=ZERO_TIMEOUT)
    assert early == system.record_of(challenge)
    assert (early.state, early.is_done) == (ChallengeState.FORWARDING, False)
    system.card_api.open.set()
    settled = await work
    assert (settled.state, settled.signature) == (ChallengeState.VERIFIED, early.signature)


@WITH_OR_WITHOUT_CHALLENGE
async def test_caller_whose_time_is_over_gets_in_progress_during_signing(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """The key backend takes longer than the caller waits."""
    challenge = system.issue_challenge()
    request = system.request(challenge if has_challenge else None)
    system.key.open.clear()
    work = asyncio.create_task(replica.sign(request, within=LONG_TIMEOUT))
    await system.wait_until(lambda: system.key.asked == 1)
    await check_in_progress(replica.sign(request, within=ZERO_TIMEOUT))
    system.key.open.set()
    assert (await work).state is ChallengeState.VERIFIED
    assert system.key.asked == 1


@pytest.mark.parametrize("refresh", [True, False])
@WITH_OR_WITHOUT_CHALLENGE
async def test_caller_whose_time_is_over_gets_in_progress_before_claim(
    system: FakeSystem, replica: Replica, has_challenge: bool, refresh: bool
) -> None:
    """The card API or the store takes longer than the caller waits."""
    challenge = system.issue_challenge()
    blocked = asyncio.Event()
    system.card_api.reads_open.clear()
    replica.store.before["claim"] = blocked.wait
    request = system.request(challenge if has_challenge else None, refresh=refresh)
    await check_in_progress(replica.sign(request, within=ZERO_TIMEOUT))
    assert not system.shelf.rows
    blocked.set()
    system.card_api.reads_open.set()
    await system.wait_until(lambda: bool(system.shelf.rows))


async def test_caller_whose_time_is_over_does_not_get_record_of_earlier_challenge(
    system: FakeSystem, replica: Replica
) -> None:
    """The earlier one was rejected; fetching the new one takes longer than the caller waits."""
    system.issue_challenge()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422))
    old = await replica.sign(system.request(), within=LONG_TIMEOUT)
    assert old.state is ChallengeState.REJECTED
    new = system.issue_challenge(nonce="anothernonce1")
    system.card_api.reads_open.clear()
    await check_in_progress(replica.sign(system.request(), within=ZERO_TIMEOUT))
    system.card_api.reads_open.set()
    assert (await replica.sign(system.request(), within=LONG_TIMEOUT)).id == system.id_of(new)


async def test_refresh_whose_time_is_over_does_not_get_superseded_record(system: FakeSystem, replica: Replica) -> None:
    """The new challenge takes longer than the caller waits."""
    old = system.make_challenge(nonce="old0old0")
    new = system.issue_challenge(nonce="new0new0")
    assert (await replica.sign(system.request(old), within=LONG_TIMEOUT)).state is ChallengeState.SUPERSEDED
    system.card_api.reads_open.clear()
    await check_in_progress(replica.sign(system.request(old, refresh=True), within=ZERO_TIMEOUT))
    system.card_api.reads_open.set()
    assert (await replica.sign(system.request(old, refresh=True), within=LONG_TIMEOUT)).id == system.id_of(new)


async def test_caller_whose_time_is_over_gets_superseded_record_without_refresh(
    system: FakeSystem, replica: Replica
) -> None:
    """The record is final, so no time is needed."""
    old, _ = system.make_challenge(nonce="old0old0"), system.issue_challenge(nonce="new0new0")
    record = await replica.sign(system.request(old), within=LONG_TIMEOUT)
    blocked = asyncio.Event()
    replica.store.before["claim"] = blocked.wait
    assert await replica.sign(system.request(old), within=ZERO_TIMEOUT) == record
    assert record.state is ChallengeState.SUPERSEDED
    blocked.set()


@pytest.mark.parametrize("conflict", ["another message", "another customer"])
async def test_caller_whose_time_is_over_does_not_get_record_of_other_request(
    system: FakeSystem, replica: Replica, conflict: str
) -> None:
    """The nonce belongs to another message, or the message to another customer."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    blocked = asyncio.Event()
    replica.store.before["claim"] = blocked.wait
    if conflict == "another message":
        request = system.request(system.make_challenge(issued_at="2026-11-22T12:00:01Z"))
    else:
        request = system.request(challenge, customer=OTHER_CUSTOMER)
    await check_in_progress(replica.sign(request, within=ZERO_TIMEOUT))
    blocked.set()


@WITH_OR_WITHOUT_CHALLENGE
async def test_caller_whose_time_is_over_does_not_wait_for_store_that_hangs(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """The lookup of the record has a time limit, too."""
    challenge = system.issue_challenge()
    request = system.request(challenge if has_challenge else None)
    system.card_api.open.clear()
    work = asyncio.create_task(replica.sign(request, within=LONG_TIMEOUT))
    await system.wait_until(lambda: bool(system.card_api.submitted))
    hanging = asyncio.Event()
    replica.store.before["get" if has_challenge else "find"] = hanging.wait
    async with asyncio.timeout(5):
        await check_in_progress(replica.sign(request, within=ZERO_TIMEOUT))
    system.card_api.open.set()
    assert (await work).state is ChallengeState.VERIFIED


async def test_caller_whose_store_hangs_waits_no_longer_than_it_said(system: FakeSystem, replica: Replica) -> None:
    """The wait for the work and the lookup of the record share its time."""
    challenge, clock = system.issue_challenge(), asyncio.get_running_loop().time
    system.card_api.open.clear()
    lookups: list[float] = []

    async def hang() -> None:
        lookups.append(clock())
        await asyncio.Event().wait()

    replica.store.before["get"] = hang
    await check_in_progress(replica.sign(system.request(challenge), within=timedelta(seconds=2)))
    assert clock() - lookups[0] < 1.5
