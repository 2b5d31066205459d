"""Tests: a replica whose lease has expired changes nothing, and its caller gets the new lease holder's result."""

from __future__ import annotations

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict, EventName
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState
from tests.unit.application.fake_system import LEASE, FakeSystem, Replica


@pytest.mark.parametrize("verdict", [DeliveryVerdict.ACCEPTED, DeliveryVerdict.NOT_PROCESSED])
async def test_attempt_that_outlasts_its_lease_raises_lease_lost_and_changes_nothing(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """Another replica has settled the record during the POST; its result stays."""
    challenge = system.issue_challenge()
    leased = await system.sign_and_record(replica, challenge)
    other_replica = system.add_replica()

    async def settle_on_other_replica() -> None:
        system.advance(LEASE)
        assert await other_replica.forward.take_over(leased.record.id) is not None

    step = "settle" if verdict is DeliveryVerdict.ACCEPTED else "defer"
    replica.store.before[step] = settle_on_other_replica
    system.card_api.verdicts.append(DeliveryResult(verdict))
    with pytest.raises(LeaseLost):
        await replica.forward.attempt(leased)
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert len(system.audit.events_named(EventName.LEASE_LOST)) == 1


@pytest.mark.parametrize("is_signed", [False, True], ids=["first_delivery", "takeover"])
async def test_caller_gets_other_replicas_result_if_lease_is_lost(
    system: FakeSystem, replica: Replica, is_signed: bool
) -> None:
    """Another replica settles the record during the delivery, and only that replica logs it as settled."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()
    if is_signed:
        await replica.sign(system.request(challenge, forward=False), within=LEASE)

    async def settle_on_other_replica() -> None:
        system.advance(LEASE)
        assert await other_replica.run_round() == 1

    replica.store.before["settle"] = settle_on_other_replica
    record = await replica.sign(system.request(challenge), within=LEASE)
    assert record == system.record_of(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert len(system.audit.events_named(EventName.SETTLED)) == 1
    assert len(system.audit.events_named(EventName.LEASE_LOST)) == 1


async def test_lease_that_recovery_loses_is_no_unexpected_error(system: FakeSystem, replica: Replica) -> None:
    """Another replica settles the record during the delivery."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()
    await system.sign_and_record(replica, challenge)
    system.advance(LEASE)

    async def settle_on_other_replica() -> None:
        system.advance(LEASE)
        assert await other_replica.run_round() == 1

    replica.store.before["settle"] = settle_on_other_replica
    assert await replica.run_round() == 0
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert system.unexpected_errors == []
