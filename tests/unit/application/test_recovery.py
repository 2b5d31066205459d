from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.application.recovery import Recovery
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.use_cases import LEASE, NO_TIME, PATIENCE, FakeSystem, Replica, forwarding_limits


async def left_behind(system: FakeSystem, count: int) -> list[str]:
    """Leave signatures of a replica that died before it sent any of them; their leases are over."""
    gone = system.replica()
    challenges = [system.challenge(nonce=f"anothernonce{number}") for number in range(count)]
    for number, challenge in enumerate(challenges):
        customer = f"00000000-0000-4000-8000-{number:012}"
        system.card_api.issue(customer, challenge)
        await system.signed(gone, challenge, customer=customer)
    system.let_pass(LEASE)
    return challenges


def states(system: FakeSystem, challenges: list[str]) -> list[ChallengeState]:
    """Look at the records."""
    return [system.record(challenge).state for challenge in challenges]


async def test_nothing_is_taken_before_its_lease_is_over(system: FakeSystem, replica: Replica) -> None:
    """Given a holder who may still live, then a tick does nothing; once its lease has ended, it delivers."""
    challenge = system.issued()
    await system.signed(system.replica(), challenge)
    assert await replica.tick() == 0
    system.let_pass(LEASE)
    assert await replica.tick() == 1
    assert system.record(challenge).state is ChallengeState.VERIFIED
    assert await replica.tick() == 0
    assert len(system.card_api.submitted) == 1


async def test_a_tick_takes_no_more_than_its_batch(system: FakeSystem) -> None:
    """Given more than a tick may take, then the rest is for the next ticks; none is taken twice."""
    replica = system.replica(batch=4)
    challenges = await left_behind(system, 10)
    assert [await replica.tick() for _ in range(4)] == [4, 4, 2, 0]
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 10
    assert len(system.card_api.submitted) == 10


@pytest.mark.parametrize("at_once", [1, 3])
async def test_a_tick_delivers_no_more_at_once_than_it_may(system: FakeSystem, at_once: int) -> None:
    """Given a bound, then no more POSTs than that are under way, and all are made."""
    replica = system.replica(max_concurrent=at_once)
    await left_behind(system, 10)
    system.card_api.open.clear()
    ticking = asyncio.create_task(replica.tick())
    await system.until(lambda: len(system.card_api.submitted) == at_once)
    system.card_api.open.set()
    assert await ticking == 10
    assert system.card_api.at_once == at_once
    assert len(system.card_api.submitted) == 10


async def test_one_that_cannot_be_taken_now_keeps_no_other_waiting(system: FakeSystem, replica: Replica) -> None:
    """Given a store that fails for one of them, then the others are delivered; the next tick takes that one."""
    challenges = await left_behind(system, 5)
    replica.store.lose_call("begin_forwarding")
    assert await replica.tick() == 4
    assert await replica.tick() == 1
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 5


async def test_one_whose_lease_is_lost_meanwhile_keeps_no_other_waiting(system: FakeSystem, replica: Replica) -> None:
    """Given one that another replica takes over in the middle, then the others are delivered all the same."""
    challenges = await left_behind(system, 5)
    elsewhere = system.replica()

    async def take_over_elsewhere() -> None:
        system.let_pass(LEASE)
        await elsewhere.tick()

    replica.store.before["settle"] = take_over_elsewhere
    await replica.tick()
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 5


async def test_unexpected_error_of_one_challenge_stops_no_other(system: FakeSystem, replica: Replica) -> None:
    """The error is reported, the other challenges are delivered, and so is this one in the next round."""
    error = RuntimeError("a defect")

    async def fail() -> None:
        raise error

    challenges = await left_behind(system, 5)
    replica.store.before["begin_forwarding"] = fail
    assert await replica.tick() == 4
    assert system.unexpected_errors == [error]
    assert await replica.tick() == 1
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 5


async def test_two_replicas_never_deliver_one_challenge_at_the_same_time(system: FakeSystem) -> None:
    """Given ticks of two replicas over one store, then each challenge is POSTed by one of them, once."""
    one, other = system.replica(max_concurrent=20), system.replica(max_concurrent=20)
    challenges = await left_behind(system, 10)
    system.card_api.open.clear()
    ticking = [asyncio.create_task(replica.tick()) for replica in (one, other, one, other)]
    await system.until(lambda: len(system.card_api.submitted) == 10)
    assert await system.replica().tick() == 0
    system.card_api.open.set()
    assert sum(await asyncio.gather(*ticking)) == 10
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 10
    assert len(system.card_api.submitted) == len(set(system.card_api.submitted)) == 10


async def test_a_caller_and_recovery_never_deliver_one_challenge_at_the_same_time(system: FakeSystem) -> None:
    """Given a signature that waits, when a caller and two replicas go for it, then it is POSTed once."""
    challenge = system.issued()
    caller, one, other = system.replica(), system.replica(), system.replica()
    await system.signed(caller, challenge)
    system.let_pass(LEASE)
    await asyncio.gather(caller.sign(system.request(challenge), within=PATIENCE), one.tick(), other.tick())
    assert system.record(challenge).state is ChallengeState.VERIFIED
    assert (len(system.card_api.submitted), system.card_api.at_once) == (1, 1)


async def test_it_goes_on_by_itself_until_it_is_stopped(system: FakeSystem, replica: Replica) -> None:
    """Given a running recovery, then what becomes due is delivered; cancelled, it ends at once."""
    running = asyncio.create_task(replica.recovery.run())
    challenges = await left_behind(system, 3)
    await system.until(lambda: states(system, challenges) == [ChallengeState.VERIFIED] * 3)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


@pytest.mark.parametrize("lot", [0.0, 0.999])
async def test_it_looks_only_now_and_then(replica: Replica, lot: float) -> None:
    """Given a long time between two ticks, then the store is not asked meanwhile, whatever lot is drawn."""
    every = timedelta(hours=1)
    recovery = Recovery(
        replica.store,
        replica.forward,
        every=every,
        batch=64,
        max_concurrent=8,
        on_unexpected_error=lambda error: pytest.fail(str(error)),
        jitter=lambda: lot,
    )
    running = asyncio.create_task(recovery.run())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not replica.store.journal
    running.cancel()
    await asyncio.wait({running})


async def test_an_outage_of_the_store_does_not_end_it(system: FakeSystem, replica: Replica) -> None:
    """Given a store that is down for a while, then recovery goes on once it is up."""
    challenges = await left_behind(system, 1)
    system.shelf.is_down = True
    running = asyncio.create_task(replica.recovery.run())
    await system.until(lambda: replica.store.journal.count("due") > 2)
    assert states(system, challenges) == [ChallengeState.FORWARDING]
    system.shelf.is_down = False
    await system.until(lambda: states(system, challenges) == [ChallengeState.VERIFIED])
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def test_one_that_hangs_keeps_its_own_place_and_no_other(system: FakeSystem) -> None:
    """Given a POST that hangs, then what becomes due meanwhile is looked for, found and delivered."""
    replica = system.replica(max_concurrent=2)
    [hanging] = await left_behind(system, 1)
    system.card_api.open.clear()
    running = asyncio.create_task(replica.recovery.run())
    await system.until(lambda: len(system.card_api.submitted) == 1)
    hanging_door, system.card_api.open = system.card_api.open, asyncio.Event()
    system.card_api.open.set()
    later = system.issued(nonce="muchlater1")
    await system.signed(system.replica(), later)
    system.let_pass(LEASE)
    await system.until(lambda: system.is_now(later, ChallengeState.VERIFIED))
    assert system.is_now(hanging, ChallengeState.FORWARDING)
    hanging_door.set()
    assert await replica.recovery.drain(PATIENCE) == 0
    await running
    assert system.is_now(hanging, ChallengeState.VERIFIED)


async def test_what_waits_for_a_place_is_bounded(system: FakeSystem) -> None:
    """Given POSTs that hang and more that is due, then no more than a batch of it is held here."""
    replica = system.replica(max_concurrent=1, batch=4)
    await left_behind(system, 10)
    system.card_api.open.clear()
    begun = [len(await replica.recovery.tick()) for _ in range(3)]
    assert begun == [4, 0, 0]
    system.card_api.open.set()
    assert await replica.recovery.drain(PATIENCE) == 0
    assert len(system.card_api.submitted) == 4


async def test_asked_to_drain_it_hands_back_what_it_cannot_end(system: FakeSystem, replica: Replica) -> None:
    """Given POSTs under way that take too long, then another replica sends the same again, without waiting."""
    challenges = await left_behind(system, 3)
    others = asyncio.all_tasks()
    system.card_api.open.clear()
    running = asyncio.create_task(replica.recovery.run())
    await system.until(lambda: len(system.card_api.submitted) == 3)
    assert await replica.recovery.drain(NO_TIME) == 3
    await running
    assert asyncio.all_tasks() == others
    assert states(system, challenges) == [ChallengeState.SIGNED] * 3
    assert {system.record(challenge).code for challenge in challenges} == {RecordCode.HANDED_BACK}
    system.card_api.open.set()
    assert await system.replica().tick() == 3
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 3
    assert len(set(system.card_api.submitted)) == 3


async def test_what_is_put_down_is_taken_up_again_when_it_is_due(system: FakeSystem, replica: Replica) -> None:
    """Given a card API that is busy, then each tick after the pause tries again, until it is done."""
    [challenge] = await left_behind(system, 1)
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)] * 3)
    for attempt in (2, 3, 4):
        assert await replica.tick() == 1
        assert await replica.tick() == 0
        system.let_pass(forwarding_limits().backoff.pause_after(attempt, lambda: 1.0))
    assert await replica.tick() == 1
    assert system.record(challenge).state is ChallengeState.VERIFIED
