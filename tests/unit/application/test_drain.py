from __future__ import annotations

import asyncio

import pytest

from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.unit.application.use_cases import LEASE, NO_TIME, PATIENCE, FakeSystem, Replica


async def asked(replica: Replica, system: FakeSystem, challenge: str) -> asyncio.Task[ChallengeRecord]:
    """Have a request under way."""
    return asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))


async def test_where_nothing_is_under_way_there_is_nothing_to_wait_for(replica: Replica) -> None:
    """Given no work, then nothing is left."""
    assert await replica.sign.drain(PATIENCE) == 0


async def test_work_under_way_ends_well_in_its_time(system: FakeSystem, replica: Replica) -> None:
    """Given a closed gate and a signing under way, when there is time, then its caller gets his answer."""
    challenge = system.issued()
    system.key.open.clear()
    caller = await asked(replica, system, challenge)
    await system.until(lambda: system.key.asked == 1)
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "It is stopping.")
    draining = asyncio.create_task(replica.sign.drain(PATIENCE))
    system.key.open.set()
    assert await draining == 0
    assert (await caller).state is ChallengeState.VERIFIED


@pytest.mark.usefixtures("no_error_unseen")
async def test_a_caller_whose_work_is_left_is_told_to_come_back(system: FakeSystem, replica: Replica) -> None:
    """Given a signing that takes too long, then its caller hears it, and another replica signs at once."""
    challenge = system.issued()
    system.key.open.clear()
    caller = await asked(replica, system, challenge)
    await system.until(lambda: system.key.asked == 1)
    assert await replica.sign.drain(NO_TIME) == 1
    with pytest.raises(Unavailable) as refusal:
        await caller
    assert refusal.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    released = system.record(challenge)
    assert (released.state, released.code) == (ChallengeState.RELEASED, RecordCode.HANDED_BACK)
    system.key.open.set()
    record = await system.replica().sign(system.request(challenge), within=PATIENCE)
    assert (record.state, system.key.signed) == (ChallengeState.VERIFIED, 1)


async def test_a_caller_whose_delivery_is_left_is_shown_the_signature(system: FakeSystem, replica: Replica) -> None:
    """Given a POST that takes too long, then its caller gets the record, and another replica sends the same again."""
    challenge = system.issued()
    system.card_api.open.clear()
    caller = await asked(replica, system, challenge)
    await system.until(lambda: bool(system.card_api.submitted))
    assert await replica.sign.drain(NO_TIME) == 1
    shown = await caller
    assert (shown.state, shown.code) == (ChallengeState.SIGNED, RecordCode.HANDED_BACK)
    system.card_api.open.set()
    assert await system.replica().tick() == 1
    record = system.record(challenge)
    assert (record.state, record.signature) == (ChallengeState.VERIFIED, shown.signature)
    assert len(system.card_api.submitted) == 2


@pytest.mark.parametrize("at", ["key", "card_api"])
async def test_what_cannot_be_handed_back_is_taken_up_after_its_lease(
    system: FakeSystem, replica: Replica, at: str
) -> None:
    """Given a store that is down when a replica stops, then the lease ends by itself, and another one goes on."""
    challenge = system.issued()
    door = system.key.open if at == "key" else system.card_api.open
    door.clear()
    caller = await asked(replica, system, challenge)
    await system.until(lambda: bool(system.key.asked if at == "key" else system.card_api.submitted))
    system.shelf.is_down = True
    assert await replica.sign.drain(NO_TIME) == 1
    await asyncio.gather(caller, return_exceptions=True)
    system.shelf.is_down = False
    door.set()
    system.let_pass(LEASE)
    record = await system.replica().sign(system.request(challenge), within=PATIENCE)
    assert record.state is ChallengeState.VERIFIED


async def test_work_that_is_left_has_ended_when_the_drain_has(system: FakeSystem, replica: Replica) -> None:
    """Given work that is left, then none of it still runs when whoever drained closes the store."""
    challenge = system.issued()
    system.key.open.clear()
    caller = await asked(replica, system, challenge)
    await system.until(lambda: system.key.asked == 1)
    everything = asyncio.all_tasks()
    await replica.sign.drain(NO_TIME)
    assert {task for task in everything if not task.done()} <= {asyncio.current_task(), caller}
    await asyncio.gather(caller, return_exceptions=True)


@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "not recorded yet"])
async def test_work_that_is_left_in_the_middle_of_recording_releases_one_signature(
    system: FakeSystem, replica: Replica, is_recorded: bool
) -> None:
    """Given a signature on its way to the store, when its work is left, then exactly one is ever shown or sent."""
    challenge = system.issued()
    where = replica.store.after if is_recorded else replica.store.before
    held_up = asyncio.Event()
    where["record_signature"] = held_up.wait
    caller = await asked(replica, system, challenge)
    await system.until(lambda: "record_signature" in replica.store.journal)
    assert await replica.sign.drain(NO_TIME) == 1
    [shown] = await asyncio.gather(caller, return_exceptions=True)
    system.let_pass(LEASE)
    record = await system.replica().sign(system.request(challenge), within=PATIENCE)
    assert record.state is ChallengeState.VERIFIED
    if is_recorded:
        assert isinstance(shown, ChallengeRecord)
        assert (shown.signature, system.key.signed) == (record.signature, 1)
    else:
        assert isinstance(shown, Unavailable)
        assert system.key.signed == 2
    assert len(system.card_api.submitted) == 1
