"""Tests: while requests to the card API are suspended, callers get the signature at once; it is delivered later."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.fake_system import LONG_TIMEOUT, FakeSystem, Replica

SUSPENSION = timedelta(seconds=4)
NOT_PROCESSED = DeliveryResult(DeliveryVerdict.NOT_PROCESSED, retry_after=SUSPENSION)


@pytest.fixture
def suspended(system: FakeSystem) -> FakeSystem:
    """A system whose card API is suspended."""
    system.card_api.suspension = SUSPENSION
    system.card_api.verdicts.append(NOT_PROCESSED)
    return system


async def test_signature_is_returned_at_once_and_delivered_by_recovery(suspended: FakeSystem, replica: Replica) -> None:
    """The caller does not wait for the delivery."""
    challenge = suspended.issue_challenge()
    async with asyncio.timeout(20):
        record = await replica.sign(suspended.request(challenge), within=LONG_TIMEOUT)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY)
    assert record.signature is not None
    assert replica.store.journal == ["claim", "record_signature", "defer"]
    suspended.card_api.suspension = None
    suspended.advance(SUSPENSION)
    assert await replica.run_round() == 1
    assert suspended.record_of(challenge).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("has_challenge", [True, False])
async def test_repeated_requests_return_same_record_and_start_no_delivery(
    suspended: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """A hundred requests while the delivery is suspended."""
    challenge = suspended.issue_challenge()
    async with asyncio.timeout(20):
        first = await replica.sign(suspended.request(challenge), within=LONG_TIMEOUT)
        request = suspended.request(challenge if has_challenge else None)
        for _ in range(100):
            assert await replica.sign(request, within=LONG_TIMEOUT) == first
    assert (suspended.key.asked, len(suspended.card_api.submitted)) == (1, 1)
    assert "begin_forwarding" not in replica.store.journal


async def test_fetch_error_is_returned_with_its_retry_after(system: FakeSystem, replica: Replica) -> None:
    """Without a challenge nothing can be signed."""
    system.card_api.suspension = SUSPENSION
    system.card_api.failures.append(
        Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "The card API is suspended.", retry_after=4.0)
    )
    with pytest.raises(Unavailable) as error:
        await replica.sign(system.request(), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 4.0)
    assert system.key.asked == 0


async def test_caller_waits_for_suspension_shorter_than_a_second(system: FakeSystem, replica: Replica) -> None:
    """The caller gets the settled record."""
    system.card_api.suspension = timedelta(milliseconds=999)
    system.card_api.verdicts.append(NOT_PROCESSED)

    async def resume() -> None:
        system.card_api.suspension = None
        system.advance(SUSPENSION)

    replica.store.after["get"] = resume
    record = await replica.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    assert (record.state, record.attempts) == (ChallengeState.VERIFIED, 2)
