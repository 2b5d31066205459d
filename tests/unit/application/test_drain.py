from __future__ import annotations

import asyncio

import pytest

from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.unit.application.fake_system import LEASE, LONG_TIMEOUT, ZERO_TIMEOUT, FakeSystem, Replica


async def start_request(replica: Replica, system: FakeSystem, challenge: str) -> asyncio.Task[ChallengeRecord]:
    """Start a request in a task."""
    return asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))


async def test_drain_without_work_returns_zero(replica: Replica) -> None:
    """Nothing is cancelled."""
    assert await replica.sign.drain(LONG_TIMEOUT) == 0


async def test_running_work_finishes_during_drain(system: FakeSystem, replica: Replica) -> None:
    """The gate is closed already; the caller gets the result."""
    challenge = system.issue_challenge()
    system.key.open.clear()
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: system.key.asked == 1)
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "The service is stopping.")
    draining = asyncio.create_task(replica.sign.drain(LONG_TIMEOUT))
    system.key.open.set()
    assert await draining == 0
    assert (await caller).state is ChallengeState.VERIFIED


@pytest.mark.usefixtures("no_unretrieved_errors")
async def test_cancelled_signing_is_handed_back_and_caller_gets_in_progress(
    system: FakeSystem, replica: Replica
) -> None:
    """Another replica signs at once."""
    challenge = system.issue_challenge()
    system.key.open.clear()
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: system.key.asked == 1)
    assert await replica.sign.drain(ZERO_TIMEOUT) == 1
    with pytest.raises(Unavailable) as error:
        await caller
    assert error.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    released = system.record_of(challenge)
    assert (released.state, released.code) == (ChallengeState.RELEASED, RecordCode.HANDED_BACK)
    system.key.open.set()
    record = await system.add_replica().sign(system.request(challenge), within=LONG_TIMEOUT)
    assert (record.state, system.key.signed) == (ChallengeState.VERIFIED, 1)


async def test_cancelled_delivery_is_handed_back_and_caller_gets_signature(
    system: FakeSystem, replica: Replica
) -> None:
    """Another replica sends the same body at once."""
    challenge = system.issue_challenge()
    system.card_api.open.clear()
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: bool(system.card_api.submitted))
    assert await replica.sign.drain(ZERO_TIMEOUT) == 1
    result = await caller
    assert (result.state, result.code) == (ChallengeState.SIGNED, RecordCode.HANDED_BACK)
    system.card_api.open.set()
    assert await system.add_replica().run_round() == 1
    record = system.record_of(challenge)
    assert (record.state, record.signature) == (ChallengeState.VERIFIED, result.signature)
    assert len(system.card_api.submitted) == 2


@pytest.mark.parametrize("blocked_step", ["key", "card_api"])
async def test_work_that_cannot_be_handed_back_continues_after_its_lease(
    system: FakeSystem, replica: Replica, blocked_step: str
) -> None:
    """The store is down during the drain."""
    challenge = system.issue_challenge()
    blocker = system.key.open if blocked_step == "key" else system.card_api.open
    blocker.clear()
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: bool(system.key.asked if blocked_step == "key" else system.card_api.submitted))
    system.shelf.is_down = True
    assert await replica.sign.drain(ZERO_TIMEOUT) == 1
    await asyncio.gather(caller, return_exceptions=True)
    system.shelf.is_down = False
    blocker.set()
    system.advance(LEASE)
    record = await system.add_replica().sign(system.request(challenge), within=LONG_TIMEOUT)
    assert record.state is ChallengeState.VERIFIED


@pytest.mark.parametrize("blocked_step", ["key", "card_api"])
async def test_cancelled_work_that_lost_its_lease_hands_nothing_back(
    system: FakeSystem, replica: Replica, blocked_step: str
) -> None:
    """Another replica holds the lease; the caller gets what is stored."""
    challenge, other_store = system.issue_challenge(), system.add_replica().store
    (system.key.open if blocked_step == "key" else system.card_api.open).clear()
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: bool(system.key.asked if blocked_step == "key" else system.card_api.submitted))
    system.advance(LEASE)
    if blocked_step == "key":
        await other_store.claim(system.claim_for(challenge))
    else:
        await other_store.begin_forwarding(system.id_of(challenge))
    taken_over = system.record_of(challenge)
    assert await replica.sign.drain(ZERO_TIMEOUT) == 1
    [result] = await asyncio.gather(caller, return_exceptions=True)
    assert isinstance(result, Unavailable) if blocked_step == "key" else result == taken_over
    assert system.record_of(challenge) == taken_over


async def test_no_work_runs_after_drain(system: FakeSystem, replica: Replica) -> None:
    """The store can be closed then."""
    challenge = system.issue_challenge()
    system.key.open.clear()
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: system.key.asked == 1)
    tasks = asyncio.all_tasks()
    await replica.sign.drain(ZERO_TIMEOUT)
    assert {task for task in tasks if not task.done()} <= {asyncio.current_task(), caller}
    await asyncio.gather(caller, return_exceptions=True)


@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "not_recorded"])
async def test_only_one_signature_is_used_if_drain_cancels_its_recording(
    system: FakeSystem, replica: Replica, is_recorded: bool
) -> None:
    """At most one signature is returned or sent, whether or not the store recorded it."""
    challenge = system.issue_challenge()
    hooks = replica.store.after if is_recorded else replica.store.before
    blocked = asyncio.Event()
    hooks["record_signature"] = blocked.wait
    caller = await start_request(replica, system, challenge)
    await system.wait_until(lambda: "record_signature" in replica.store.journal)
    assert await replica.sign.drain(ZERO_TIMEOUT) == 1
    [result] = await asyncio.gather(caller, return_exceptions=True)
    system.advance(LEASE)
    record = await system.add_replica().sign(system.request(challenge), within=LONG_TIMEOUT)
    assert record.state is ChallengeState.VERIFIED
    if is_recorded:
        assert isinstance(result, ChallengeRecord)
        assert (result.signature, system.key.signed) == (record.signature, 1)
    else:
        assert isinstance(result, Unavailable)
        assert system.key.signed == 2
    assert len(system.card_api.submitted) == 1
