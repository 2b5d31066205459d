"""Whoever takes longer than his lease finds the record moved on, and says what the others made of it."""

from __future__ import annotations

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict, EventName
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.unit.application.use_cases import LEASE, FakeSystem, Replica


@pytest.mark.parametrize("verdict", [DeliveryVerdict.ACCEPTED, DeliveryVerdict.NOT_PROCESSED])
async def test_a_holder_who_comes_back_too_late_changes_nothing(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """Given a POST that outlasted its lease, when another has settled the record, then that end stands."""
    challenge = system.issued()
    held = await system.signed(replica, challenge)
    elsewhere = system.replica()

    async def settle_elsewhere() -> None:
        system.let_pass(LEASE)
        assert await elsewhere.forward.take_over(held.record.id) is not None

    step = "settle" if verdict is DeliveryVerdict.ACCEPTED else "defer"
    replica.store.before[step] = settle_elsewhere
    system.card_api.verdicts.append(DeliveryResult(verdict))
    with pytest.raises(Unavailable) as refusal:
        await replica.forward.attempt(held)
    assert refusal.value.code is ErrorCode.LEASE_LOST
    assert system.record(challenge).state is ChallengeState.VERIFIED
    assert len(system.audit.of(EventName.LEASE_LOST)) == 1


async def test_a_caller_whose_holder_came_back_too_late_gets_the_others_answer(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a lease lost in the middle of a delivery, then its caller hears what became of it elsewhere."""
    challenge = system.issued()
    elsewhere = system.replica()

    async def settle_elsewhere() -> None:
        system.let_pass(LEASE)
        assert await elsewhere.tick() == 1

    replica.store.before["settle"] = settle_elsewhere
    record = await replica.sign(system.request(challenge), within=LEASE)
    assert record == system.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert len(system.audit.of(EventName.SETTLED)) == 1


async def test_a_caller_whose_retry_was_lost_gets_the_others_answer(system: FakeSystem, replica: Replica) -> None:
    """Given a lease lost in the middle of a second attempt, then its caller hears what became of it elsewhere."""
    challenge = system.issued()
    await replica.sign(system.request(challenge, forward=False), within=LEASE)
    elsewhere = system.replica()

    async def settle_elsewhere() -> None:
        system.let_pass(LEASE)
        assert await elsewhere.tick() == 1

    replica.store.before["settle"] = settle_elsewhere
    record = await replica.sign(system.request(challenge), within=LEASE)
    assert record == system.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert len(system.audit.of(EventName.LEASE_LOST)) == 1
