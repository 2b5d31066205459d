"""What callers get while the card API is not asked: the signature at once, its delivery later."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.use_cases import PATIENCE, FakeSystem, Replica

A_WHILE = timedelta(seconds=4)
NOT_NOW = DeliveryResult(DeliveryVerdict.NOT_PROCESSED, retry_after=A_WHILE)


@pytest.fixture
def down(system: FakeSystem) -> FakeSystem:
    """A system whose card API is not asked for a while."""
    system.card_api.suspension = A_WHILE
    system.card_api.verdicts.append(NOT_NOW)
    return system


async def test_a_signature_is_answered_at_once_and_delivered_later(down: FakeSystem, replica: Replica) -> None:
    """Given that, when a challenge is given, then its caller waits for nothing, and recovery does the rest."""
    challenge = down.issued()
    async with asyncio.timeout(20):
        record = await replica.sign(down.request(challenge), within=PATIENCE)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY)
    assert record.signature is not None
    assert replica.store.journal == ["claim", "record_signature", "defer"]
    down.card_api.suspension = None
    down.let_pass(A_WHILE)
    assert await replica.tick() == 1
    assert down.record(challenge).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("is_named", [True, False])
async def test_asking_again_changes_nothing(down: FakeSystem, replica: Replica, is_named: bool) -> None:
    """Given a signature that waits, when a hundred ask for it, then each has it, and none goes on with it."""
    challenge = down.issued()
    async with asyncio.timeout(20):
        first = await replica.sign(down.request(challenge), within=PATIENCE)
        request = down.request(challenge if is_named else None)
        for _ in range(100):
            assert await replica.sign(request, within=PATIENCE) == first
    assert (down.key.asked, len(down.card_api.submitted)) == (1, 1)
    assert "begin_forwarding" not in replica.store.journal


async def test_where_nothing_is_signed_the_caller_hears_when_to_come_back(system: FakeSystem, replica: Replica) -> None:
    """Given that, when the challenge has to be fetched, then the failure of that is the answer."""
    system.card_api.suspension = A_WHILE
    system.card_api.failures.append(Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "Not now.", retry_after=4.0))
    with pytest.raises(Unavailable) as refusal:
        await replica.sign(system.request(), within=PATIENCE)
    assert (refusal.value.code, refusal.value.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 4.0)
    assert system.key.asked == 0


async def test_a_moment_is_waited_for(system: FakeSystem, replica: Replica) -> None:
    """Given that it is for less than a second, then the caller gets the end of it."""
    system.card_api.suspension = timedelta(milliseconds=999)
    system.card_api.verdicts.append(NOT_NOW)

    async def later() -> None:
        system.card_api.suspension = None
        system.let_pass(A_WHILE)

    replica.store.after["get"] = later
    record = await replica.sign(system.request(system.issued()), within=PATIENCE)
    assert (record.state, record.attempts) == (ChallengeState.VERIFIED, 2)
