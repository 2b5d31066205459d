from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.application.recovery import Recovery
from signer.domain.errors import RecordDamaged
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.fake_system import LEASE, LONG_TIMEOUT, ZERO_TIMEOUT, FakeSystem, Replica, forwarding_limits


async def leave_signatures(system: FakeSystem, count: int) -> list[str]:
    """Leave signatures of a replica that died before it sent them; their leases have ended."""
    dead_replica = system.add_replica()
    challenges = [system.make_challenge(nonce=f"anothernonce{number}") for number in range(count)]
    for number, challenge in enumerate(challenges):
        customer = f"00000000-0000-4000-8000-{number:012}"
        system.card_api.issue(customer, challenge)
        await system.sign_and_record(dead_replica, challenge, customer=customer)
    system.advance(LEASE)
    return challenges


def states(system: FakeSystem, challenges: list[str]) -> list[ChallengeState]:
    """Return the states of the records."""
    return [system.record_of(challenge).state for challenge in challenges]


def hourly_recovery(replica: Replica, jitter: float = 0.0, *, is_failing: bool = False) -> Recovery:
    """Create a recovery whose pauses are longer than any test."""
    return Recovery(
        replica.store,
        replica.forward,
        every=timedelta(hours=1),
        batch=64,
        max_concurrent=8,
        is_card_api_failing=lambda: is_failing,
        on_unexpected_error=lambda error: pytest.fail(str(error)),
        jitter=lambda: jitter,
    )


async def test_nothing_is_taken_over_before_its_lease_ends(system: FakeSystem, replica: Replica) -> None:
    """After that it is delivered once."""
    challenge = system.issue_challenge()
    await system.sign_and_record(system.add_replica(), challenge)
    assert await replica.run_round() == 0
    system.advance(LEASE)
    assert await replica.run_round() == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert await replica.run_round() == 0
    assert len(system.card_api.submitted) == 1


async def test_failing_card_api_gets_one_challenge_at_a_time(system: FakeSystem) -> None:
    """The first one that is delivered shows that it works again, and the next round takes over all others."""
    replica = system.add_replica(batch=64)
    challenges = await leave_signatures(system, 10)
    system.is_card_api_failing = True
    assert await replica.run_round() == 1
    assert await replica.run_round() == 1
    system.is_card_api_failing = False
    assert await replica.run_round() == 8
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 10


async def test_round_takes_over_at_most_one_batch(system: FakeSystem) -> None:
    """The next rounds take over the others, each once."""
    replica = system.add_replica(batch=4)
    challenges = await leave_signatures(system, 10)
    assert [await replica.run_round() for _ in range(4)] == [4, 4, 2, 0]
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 10
    assert len(system.card_api.submitted) == 10


@pytest.mark.parametrize("limit", [1, 3])
async def test_round_delivers_at_most_max_concurrent_at_a_time(system: FakeSystem, limit: int) -> None:
    """All are delivered in the end."""
    replica = system.add_replica(max_concurrent=limit)
    await leave_signatures(system, 10)
    system.card_api.open.clear()
    rounds = asyncio.create_task(replica.run_round())
    await system.wait_until(lambda: len(system.card_api.submitted) == limit)
    system.card_api.open.set()
    assert await rounds == 10
    assert system.card_api.max_in_flight == limit
    assert len(system.card_api.submitted) == 10


async def test_store_failure_for_one_challenge_does_not_stop_others(system: FakeSystem, replica: Replica) -> None:
    """The next round takes it over."""
    challenges = await leave_signatures(system, 5)
    replica.store.lose_call("begin_forwarding")
    assert await replica.run_round() == 4
    assert await replica.run_round() == 1
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 5


async def test_lost_lease_of_one_challenge_does_not_stop_others(system: FakeSystem, replica: Replica) -> None:
    """Another replica takes that one over."""
    challenges = await leave_signatures(system, 5)
    other_replica = system.add_replica()

    async def take_over_on_other_replica() -> None:
        system.advance(LEASE)
        await other_replica.run_round()

    replica.store.before["settle"] = take_over_on_other_replica
    await replica.run_round()
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 5


async def test_unexpected_error_of_a_round_does_not_end_recovery(system: FakeSystem, replica: Replica) -> None:
    """The error is reported, and the next round delivers."""
    error = ValueError("a defect")

    async def fail() -> None:
        raise error

    [challenge] = await leave_signatures(system, 1)
    replica.store.before["due"] = fail
    running = asyncio.create_task(replica.recovery.run())
    await system.wait_until(lambda: system.has_state(challenge, ChallengeState.VERIFIED))
    assert system.unexpected_errors == [error]
    await replica.recovery.drain(LONG_TIMEOUT)
    await running


async def test_round_that_meets_a_drain_takes_nothing_over(system: FakeSystem, replica: Replica) -> None:
    """Nothing would wait for its takeovers: another replica makes them."""
    [challenge] = await leave_signatures(system, 1)

    async def drain() -> None:
        assert await replica.recovery.drain(LONG_TIMEOUT) == 0

    replica.store.after["due"] = drain
    assert await replica.recovery.start_round() == []
    assert not system.card_api.submitted
    assert await system.add_replica().run_round() == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED


async def test_unexpected_error_of_one_challenge_does_not_stop_others(system: FakeSystem, replica: Replica) -> None:
    """The error is reported, and the next round delivers this one."""
    error = RuntimeError("a defect")

    async def fail() -> None:
        raise error

    challenges = await leave_signatures(system, 5)
    replica.store.before["begin_forwarding"] = fail
    assert await replica.run_round() == 4
    assert system.unexpected_errors == [error]
    assert await replica.run_round() == 1
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 5


async def test_damaged_record_of_one_challenge_does_not_stop_others(system: FakeSystem, replica: Replica) -> None:
    """The store has reported it and ended its record: it is no bug."""

    async def fail() -> None:
        raise RecordDamaged

    challenges = await leave_signatures(system, 5)
    replica.store.before["begin_forwarding"] = fail
    assert await replica.run_round() == 5
    assert system.unexpected_errors == []
    assert sum(state is ChallengeState.VERIFIED for state in states(system, challenges)) == 4


async def test_concurrent_rounds_of_two_replicas_deliver_each_challenge_once(system: FakeSystem) -> None:
    """Each is sent by one of them."""
    first, second = system.add_replica(max_concurrent=20), system.add_replica(max_concurrent=20)
    challenges = await leave_signatures(system, 10)
    system.card_api.open.clear()
    rounds = [asyncio.create_task(replica.run_round()) for replica in (first, second, first, second)]
    await system.wait_until(lambda: len(system.card_api.submitted) == 10)
    assert await system.add_replica().run_round() == 0
    system.card_api.open.set()
    assert sum(await asyncio.gather(*rounds)) == 10
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 10
    assert len(system.card_api.submitted) == len(set(system.card_api.submitted)) == 10


async def test_caller_and_recovery_of_two_replicas_deliver_challenge_once(system: FakeSystem) -> None:
    """It is sent once."""
    challenge = system.issue_challenge()
    caller, first, second = system.add_replica(), system.add_replica(), system.add_replica()
    await system.sign_and_record(caller, challenge)
    system.advance(LEASE)
    request = system.request(challenge)
    await asyncio.gather(caller.sign(request, within=LONG_TIMEOUT), first.run_round(), second.run_round())
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert (len(system.card_api.submitted), system.card_api.max_in_flight) == (1, 1)


async def test_run_delivers_what_becomes_due_until_cancelled(system: FakeSystem, replica: Replica) -> None:
    """It ends at once when it is cancelled."""
    running = asyncio.create_task(replica.recovery.run())
    challenges = await leave_signatures(system, 3)
    await system.wait_until(lambda: states(system, challenges) == [ChallengeState.VERIFIED] * 3)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


@pytest.mark.parametrize("jitter", [0.0, 0.999])
async def test_run_does_not_read_index_before_first_pause_ends(replica: Replica, jitter: float) -> None:
    """With the least and the greatest jitter."""
    running = asyncio.create_task(hourly_recovery(replica, jitter).run())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not replica.store.journal
    running.cancel()
    await asyncio.wait({running})


async def test_run_after_drain_returns_at_once(replica: Replica) -> None:
    """No round is started."""
    recovery = hourly_recovery(replica)
    assert await recovery.drain(ZERO_TIMEOUT) == 0
    async with asyncio.timeout(20):
        await recovery.run()
    assert not replica.store.journal


async def test_run_returns_when_drained_during_its_pause(replica: Replica) -> None:
    """The pause ends early, and no round is started."""
    recovery = hourly_recovery(replica)
    running = asyncio.create_task(recovery.run())
    await asyncio.sleep(0)  # the task waits for its pause now
    assert await recovery.drain(ZERO_TIMEOUT) == 0
    async with asyncio.timeout(20):
        await running
    assert not replica.store.journal


async def test_run_returns_when_drained_during_a_round(system: FakeSystem, replica: Replica) -> None:
    """The store takes its time to return the index; no second round is started."""
    blocked = asyncio.Event()
    replica.store.before["due"] = blocked.wait
    running = asyncio.create_task(replica.recovery.run())
    await system.wait_until(lambda: replica.store.journal == ["due"])
    assert await replica.recovery.drain(ZERO_TIMEOUT) == 0
    blocked.set()
    async with asyncio.timeout(20):
        await running
    assert replica.store.journal == ["due"]


async def test_run_continues_after_store_outage(system: FakeSystem, replica: Replica) -> None:
    """It delivers when the store is up again."""
    challenges = await leave_signatures(system, 1)
    system.shelf.is_down = True
    running = asyncio.create_task(replica.recovery.run())
    await system.wait_until(lambda: replica.store.journal.count("due") > 2)
    assert states(system, challenges) == [ChallengeState.FORWARDING]
    system.shelf.is_down = False
    await system.wait_until(lambda: states(system, challenges) == [ChallengeState.VERIFIED])
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def test_delivery_that_hangs_does_not_stop_later_rounds(system: FakeSystem) -> None:
    """What becomes due meanwhile is delivered."""
    replica = system.add_replica(max_concurrent=2)
    [hanging] = await leave_signatures(system, 1)
    system.card_api.open.clear()
    running = asyncio.create_task(replica.recovery.run())
    await system.wait_until(lambda: len(system.card_api.submitted) == 1)
    blocker, system.card_api.open = system.card_api.open, asyncio.Event()
    system.card_api.open.set()
    later = system.issue_challenge(nonce="muchlater1")
    await system.sign_and_record(system.add_replica(), later)
    system.advance(LEASE)
    await system.wait_until(lambda: system.has_state(later, ChallengeState.VERIFIED))
    assert system.has_state(hanging, ChallengeState.FORWARDING)
    blocker.set()
    assert await replica.recovery.drain(LONG_TIMEOUT) == 0
    await running
    assert system.has_state(hanging, ChallengeState.VERIFIED)


async def test_rounds_hold_at_most_one_batch(system: FakeSystem) -> None:
    """The deliveries hang, and more is due."""
    replica = system.add_replica(max_concurrent=1, batch=4)
    await leave_signatures(system, 10)
    system.card_api.open.clear()
    begun = [len(await replica.recovery.start_round()) for _ in range(3)]
    assert begun == [4, 0, 0]
    system.card_api.open.set()
    assert await replica.recovery.drain(LONG_TIMEOUT) == 0
    assert len(system.card_api.submitted) == 4


async def test_drain_hands_back_deliveries_that_take_too_long(system: FakeSystem, replica: Replica) -> None:
    """Another replica sends them again without waiting."""
    challenges = await leave_signatures(system, 3)
    others = asyncio.all_tasks()
    system.card_api.open.clear()
    running = asyncio.create_task(replica.recovery.run())
    await system.wait_until(lambda: len(system.card_api.submitted) == 3)
    assert await replica.recovery.drain(ZERO_TIMEOUT) == 3
    await running
    assert asyncio.all_tasks() == others
    assert states(system, challenges) == [ChallengeState.SIGNED] * 3
    assert {system.record_of(challenge).code for challenge in challenges} == {RecordCode.HANDED_BACK}
    system.card_api.open.set()
    assert await system.add_replica().run_round() == 3
    assert states(system, challenges) == [ChallengeState.VERIFIED] * 3
    assert len(set(system.card_api.submitted)) == 3


async def test_deferred_challenge_is_taken_over_after_each_pause(system: FakeSystem, replica: Replica) -> None:
    """The card API is busy three times."""
    [challenge] = await leave_signatures(system, 1)
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)] * 3)
    for attempt in (2, 3, 4):
        assert await replica.run_round() == 1
        assert await replica.run_round() == 0
        system.advance(forwarding_limits().backoff.pause_after(attempt, lambda: 1.0))
    assert await replica.run_round() == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
