from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.fake_system import CUSTOMER, FakeSystem, Replica

PROVEN = ("screening", "verifying", "active", "inactive", "Active", "VERIFYING")
NOT_PROVEN = ("initiating", "Initiating", "rejected", "failed", "unknown", "closed", "")


ALREADY_SIGNED = (ChallengeState.ALREADY_SIGNED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
RETRIED = (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY)


@pytest.mark.parametrize(
    ("status", "outcome"), [*((word, ALREADY_SIGNED) for word in PROVEN), *((word, RETRIED) for word in NOT_PROVEN)]
)
async def test_ambiguous_conflict_is_settled_only_if_status_is_proven(
    system: FakeSystem, replica: Replica, status: str, outcome: tuple[ChallengeState, RecordCode]
) -> None:
    """After a 409 without a body, only a customer that got past its challenge ends the record."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.customers[CUSTOMER].status = status
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == outcome


@pytest.mark.parametrize("status", NOT_PROVEN)
async def test_repeated_5xx_is_not_settled_as_verified_if_status_proves_nothing(
    system: FakeSystem, replica: Replica, status: str
) -> None:
    """500 three times, and a customer that was rejected meanwhile: its wallet was not proven by that."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN, 500)] * 3)
    leased = await system.sign_and_record(replica, challenge)
    system.card_api.customers[CUSTOMER].status = status
    await replica.forward.attempt(leased)
    for _ in range(2):
        system.advance(timedelta(minutes=1))
        await replica.tick()
    record = system.record_of(challenge)
    assert record.attempts == 3
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_UNAVAILABLE)
