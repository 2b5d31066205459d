"""Tests: work that waits for another lease holder or for the card API."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application import forward_signature, sign_challenge
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.fake_system import CUSTOMER, LEASE, LONG_TIMEOUT, FakeSystem, Replica, forwarding_limits


async def claim_on_other_replica(system: FakeSystem, challenge: str) -> None:
    """Claim a challenge on another replica, without a signature."""
    await system.add_replica().store.claim(system.claim_for(challenge))


async def test_caller_waits_for_lease_holder_and_gets_its_result(system: FakeSystem, replica: Replica) -> None:
    """Another replica signs and delivers."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()
    system.key.open.clear()
    other_caller = asyncio.create_task(other_replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: system.key.asked == 1)
    caller = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: replica.store.journal.count("claim") > 1)
    system.key.open.set()
    assert await caller == await other_caller
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


async def test_caller_signs_after_lease_holder_released(system: FakeSystem, replica: Replica) -> None:
    """The other replica's key backend has failed."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()
    claimed = await other_replica.store.claim(system.claim_for(challenge))
    assert claimed.lease is not None
    caller = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: replica.store.journal.count("claim") > 1)
    assert system.key.asked == 0
    await other_replica.store.release(claimed.lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (await caller).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("has_challenge", [True, False], ids=["with_challenge", "without_challenge"])
async def test_caller_signs_after_lease_of_dead_replica_ended(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """Under a new fencing token."""
    challenge = system.issue_challenge()
    await system.add_replica().store.claim(system.claim_for(challenge))
    request = system.request(challenge if has_challenge else None)
    caller = asyncio.create_task(replica.sign(request, within=LONG_TIMEOUT))
    await system.wait_until(lambda: replica.store.journal.count("claim") > 1)
    assert system.key.asked == 0
    system.advance(LEASE)
    record = await caller
    assert (record.state, record.fencing_token) == (ChallengeState.VERIFIED, 2)


async def test_caller_waits_for_delivery_on_other_replica(system: FakeSystem, replica: Replica) -> None:
    """Nothing is sent a second time."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()
    system.card_api.open.clear()
    other_caller = asyncio.create_task(other_replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: bool(system.card_api.submitted))
    caller = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: replica.store.journal.count("get") > 1)
    system.card_api.open.set()
    assert await caller == await other_caller
    assert len(system.card_api.submitted) == 1


@pytest.mark.parametrize("waits_for", ["lease holder", "card API"])
async def test_store_is_read_once_per_poll_interval(
    system: FakeSystem, replica: Replica, monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    """The poll interval is an hour."""
    for module in (sign_challenge, forward_signature):
        monkeypatch.setattr(module, "POLL_INTERVAL", 3600)
    challenge = system.issue_challenge()
    await (
        system.sign_and_record(system.add_replica(), challenge)
        if waits_for == "card API"
        else claim_on_other_replica(system, challenge)
    )
    caller = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    for _ in range(100):
        await asyncio.sleep(0)
    expected = ["claim"] if waits_for == "lease holder" else ["claim", "begin_forwarding", "expire"]
    assert replica.store.journal == expected
    caller.cancel()
    await asyncio.wait({caller})


async def test_record_lost_by_store_is_returned_as_last_read(system: FakeSystem, replica: Replica) -> None:
    """The store loses it while the caller waits; there is no error."""
    challenge = system.issue_challenge()
    leased = await system.sign_and_record(system.add_replica(), challenge)

    async def delete_records() -> None:
        system.shelf.rows.clear()

    quick_replica = system.add_replica(work_timeout=timedelta(milliseconds=20))
    quick_replica.store.before["get"] = delete_records
    record = await quick_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert (record.id, record.state, record.signature) == (
        leased.record.id,
        leased.record.state,
        leased.record.signature,
    )


async def test_waiting_for_lease_holder_ends_after_work_timeout_with_in_progress(
    system: FakeSystem, no_retry_replica: Replica
) -> None:
    """The record is unchanged."""
    challenge = system.issue_challenge()
    await system.add_replica().store.claim(system.claim_for(challenge))
    with pytest.raises(Unavailable) as error:
        await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    assert system.record_of(challenge).state is ChallengeState.CLAIMED


async def test_waiting_for_card_api_ends_after_work_timeout_with_signature(
    system: FakeSystem, no_retry_replica: Replica
) -> None:
    """The card API is busy; recovery delivers later."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503))
    record = await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY)
    assert record.signature is not None
    assert system.card_api.customers[CUSTOMER].status == "initiating"


async def test_work_retries_after_each_pause_while_card_api_is_busy(system: FakeSystem, replica: Replica) -> None:
    """The same body is sent three times."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)] * 2)
    caller = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    for attempt in (1, 2):
        await system.wait_until(lambda: system.has_state(challenge, ChallengeState.SIGNED))
        assert len(system.card_api.submitted) == system.record_of(challenge).attempts == attempt
        system.advance(forwarding_limits().backoff.pause_after(attempt, lambda: 1.0))
        await system.wait_until(lambda: system.record_of(challenge).attempts > attempt)  # noqa: B023 - called at once
    record = await caller
    assert (record.state, record.attempts) == (ChallengeState.VERIFIED, 3)
    assert system.key.signed == 1
