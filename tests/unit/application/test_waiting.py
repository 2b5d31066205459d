"""Work that waits for others: for the holder of a challenge, or for the card API."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.use_cases import CUSTOMER, LEASE, PATIENCE, FakeSystem, Replica, forwarding_limits


async def claimed_elsewhere(system: FakeSystem, challenge: str) -> None:
    """Have another replica hold a challenge that it has not signed yet."""
    await system.replica().store.claim(system.claim(challenge))


async def test_a_caller_waits_for_the_holder_of_the_challenge(system: FakeSystem, replica: Replica) -> None:
    """Given a signing at another replica, when that one settles it, then its end is this caller's answer."""
    challenge, elsewhere = system.issued(), system.replica()
    system.key.open.clear()
    there = asyncio.create_task(elsewhere.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: system.key.asked == 1)
    here = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: replica.store.journal.count("claim") > 1)
    system.key.open.set()
    assert await here == await there
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


async def test_a_caller_signs_where_the_holder_gave_up(system: FakeSystem, replica: Replica) -> None:
    """Given a signing at another replica, when that one's backend fails, then this replica signs."""
    challenge, elsewhere = system.issued(), system.replica()
    claimed = await elsewhere.store.claim(system.claim(challenge))
    assert claimed.lease is not None
    here = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: replica.store.journal.count("claim") > 1)
    assert system.key.asked == 0
    await elsewhere.store.release(claimed.lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert (await here).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("is_named", [True, False], ids=["challenge given", "challenge left out"])
async def test_a_caller_signs_where_the_holder_died(system: FakeSystem, replica: Replica, is_named: bool) -> None:
    """Given a claim whose holder is gone, when its lease ends, then this replica signs under a new fence."""
    challenge = system.issued()
    await system.replica().store.claim(system.claim(challenge))
    request = system.request(challenge if is_named else None)
    here = asyncio.create_task(replica.sign(request, within=PATIENCE))
    await system.until(lambda: replica.store.journal.count("claim") > 1)
    assert system.key.asked == 0
    system.let_pass(LEASE)
    record = await here
    assert (record.state, record.fencing_token) == (ChallengeState.VERIFIED, 2)


async def test_a_delivery_at_another_replica_is_waited_for_and_not_repeated(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a POST under way elsewhere, then this caller waits for its end; nothing is POSTed beside it."""
    challenge, elsewhere = system.issued(), system.replica()
    system.card_api.open.clear()
    there = asyncio.create_task(elsewhere.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: bool(system.card_api.submitted))
    here = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: replica.store.journal.count("get") > 1)
    system.card_api.open.set()
    assert await here == await there
    assert len(system.card_api.submitted) == 1


@pytest.mark.parametrize("waits_for", ["holder", "card API"])
async def test_who_waits_looks_only_now_and_then(system: FakeSystem, waits_for: str) -> None:
    """Given a long pause between two looks, then the store is asked once, however long the others are busy."""
    challenge, patient = system.issued(), system.replica(poll_interval=timedelta(hours=1))
    await (
        system.signed(system.replica(), challenge) if waits_for == "card API" else claimed_elsewhere(system, challenge)
    )
    here = asyncio.create_task(patient.sign(system.request(challenge), within=PATIENCE))
    for _ in range(100):
        await asyncio.sleep(0)
    assert patient.store.journal == (["claim"] if waits_for == "holder" else ["claim", "begin_forwarding", "expire"])
    here.cancel()
    await asyncio.wait({here})


async def test_a_record_that_vanishes_while_it_is_waited_for_is_shown_as_it_was(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a store that loses a record under a caller, then he gets what was known last, and no error."""
    challenge = system.issued()
    held = await system.signed(system.replica(), challenge)

    async def lose_everything() -> None:
        system.shelf.rows.clear()

    one_look = system.replica(work_timeout=timedelta(milliseconds=20))
    one_look.store.before["get"] = lose_everything
    record = await one_look.sign(system.request(challenge), within=PATIENCE)
    assert (record.id, record.state, record.signature) == (held.record.id, held.record.state, held.record.signature)


async def test_work_that_waits_for_the_holder_ends_with_its_time(system: FakeSystem, hasty: Replica) -> None:
    """Given a holder that takes longer than a work goes on, then the challenge is in progress, and not refused."""
    challenge = system.issued()
    await system.replica().store.claim(system.claim(challenge))
    with pytest.raises(Unavailable) as refusal:
        await hasty.sign(system.request(challenge), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    assert system.record(challenge).state is ChallengeState.CLAIMED


async def test_work_that_waits_for_the_card_api_ends_with_its_time(system: FakeSystem, hasty: Replica) -> None:
    """Given a card API that is busy longer than a work goes on, then the record is shown as it waits."""
    challenge = system.issued()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503))
    record = await hasty.sign(system.request(challenge), within=PATIENCE)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY)
    assert record.signature is not None
    assert system.card_api.customers[CUSTOMER].status == "initiating"


async def test_work_goes_on_with_a_busy_card_api_when_the_pause_is_over(system: FakeSystem, replica: Replica) -> None:
    """Given a card API that is busy twice, then the same body goes out three times, each after its pause."""
    challenge = system.issued()
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)] * 2)
    here = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    for attempt in (1, 2):
        await system.until(lambda: system.is_now(challenge, ChallengeState.SIGNED))
        assert len(system.card_api.submitted) == system.record(challenge).attempts == attempt
        system.let_pass(forwarding_limits().backoff.pause_after(attempt, lambda: 1.0))
        await system.until(lambda: system.record(challenge).attempts > attempt)  # noqa: B023 - called at once
    record = await here
    assert (record.state, record.attempts) == (ChallengeState.VERIFIED, 3)
    assert system.key.signed == 1
