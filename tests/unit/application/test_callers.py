from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict, EventName
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord
from tests.unit.application.use_cases import NO_TIME, OTHER_CUSTOMER, PATIENCE, FakeSystem, Replica

NAMED_OR_NOT = pytest.mark.parametrize("is_named", [True, False], ids=["challenge given", "challenge left out"])


async def in_progress(asking: Coroutine[Any, Any, ChallengeRecord]) -> None:
    """See a caller being told to come back."""
    with pytest.raises(Unavailable) as refusal:
        await asking
    assert (refusal.value.code, refusal.value.retry_after) == (ErrorCode.CHALLENGE_IN_PROGRESS, 1.0)


@NAMED_OR_NOT
async def test_fifty_callers_at_once_share_one_signature_and_one_delivery(
    system: FakeSystem, replica: Replica, is_named: bool
) -> None:
    """Given fifty equal requests, then there is one claim, one signature, one delivery, and fifty equal answers."""
    challenge = system.issued()
    request = system.request(challenge if is_named else None)
    answers = await asyncio.gather(*(replica.sign(request, within=PATIENCE) for _ in range(50)))
    assert answers == [system.record(challenge)] * 50
    assert answers[0].state is ChallengeState.VERIFIED
    assert replica.store.journal.count("claim") == 1
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)
    assert not system.audit.of(EventName.TAKEN_OVER)


async def test_fifty_callers_of_five_replicas_share_one_signature_and_one_delivery(system: FakeSystem) -> None:
    """Given callers with and without the challenge at several replicas, then all of them see the one record."""
    challenge = system.issued()
    replicas = [system.replica() for _ in range(5)]
    requests = [system.request(challenge), system.request()]
    answers = await asyncio.gather(
        *(replicas[n % 5].sign(requests[n % 2], within=PATIENCE) for n in range(50)),
    )
    assert answers == [system.record(challenge)] * 50
    assert answers[0].state is ChallengeState.VERIFIED
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


async def test_fifty_callers_hear_of_the_one_failure(system: FakeSystem, replica: Replica) -> None:
    """Given a backend that fails, then it was asked once, and fifty callers hear why."""
    challenge = system.issued()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "It is down.")
    request = system.request(challenge)
    asking = (replica.sign(request, within=PATIENCE) for _ in range(50))
    assert await asyncio.gather(*asking, return_exceptions=True) == [system.key.failure] * 50
    assert system.key.asked == 1


async def test_a_caller_that_goes_away_leaves_the_work_running(system: FakeSystem, replica: Replica) -> None:
    """Given two callers of one work, when one goes away, then the other gets its answer."""
    challenge = system.issued()
    system.key.open.clear()
    leaving, staying = (asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE)) for _ in range(2))
    await system.until(lambda: system.key.asked == 1)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    system.key.open.set()
    assert (await staying).state is ChallengeState.VERIFIED


async def test_work_goes_on_when_nobody_is_left_to_see_its_end(system: FakeSystem, replica: Replica) -> None:
    """Given a caller that goes away during the POST, then the record is settled all the same."""
    challenge = system.issued()
    system.card_api.open.clear()
    leaving = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: bool(system.card_api.submitted))
    leaving.cancel()
    await asyncio.wait({leaving})
    system.card_api.open.set()
    await system.until(lambda: system.is_now(challenge, ChallengeState.VERIFIED))
    assert len(system.card_api.submitted) == 1


@pytest.mark.usefixtures("no_error_unseen")
async def test_next_request_starts_new_work_after_work_without_a_caller_failed(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a caller that disconnected and work that failed, then the next request does not get the old failure.

    The refusal is logged in the last step of the work. A request that comes before it joins the failing work.
    """
    challenge = system.issued()
    system.key.open.clear()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "It is down.")
    await in_progress(replica.sign(system.request(challenge), within=NO_TIME))
    system.key.open.set()
    await system.until(lambda: bool(system.audit.of(EventName.REFUSED)))
    system.key.failure = None
    assert (await replica.sign(system.request(challenge), within=PATIENCE)).state is ChallengeState.VERIFIED


async def test_request_gets_the_failure_of_the_work_that_it_joined(system: FakeSystem, replica: Replica) -> None:
    """Given work that is about to fail, then a request that joins it gets the failure, although the nonce is free."""
    challenge = system.issued()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "It is down.")
    released, may_end = asyncio.Event(), asyncio.Event()

    async def hold_reply() -> None:
        released.set()
        await may_end.wait()

    replica.store.after["release"] = hold_reply
    first = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await released.wait()
    assert system.is_now(challenge, ChallengeState.RELEASED)
    second = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await asyncio.sleep(0)
    may_end.set()
    assert list(await asyncio.gather(first, second, return_exceptions=True)) == [system.key.failure] * 2
    assert system.key.asked == 1


@pytest.mark.parametrize("refresh", [True, False])
@NAMED_OR_NOT
async def test_a_caller_in_a_hurry_is_shown_a_signature_on_its_way(
    system: FakeSystem, replica: Replica, is_named: bool, refresh: bool
) -> None:
    """Given a POST that takes longer than the caller waits, then he gets the record as it is; later it is proven."""
    challenge = system.issued()
    request = system.request(challenge if is_named else None, refresh=refresh)
    system.card_api.open.clear()
    patient = asyncio.create_task(replica.sign(request, within=PATIENCE))
    await system.until(lambda: bool(system.card_api.submitted))
    shown = await replica.sign(request, within=NO_TIME)
    assert shown == system.record(challenge)
    assert (shown.state, shown.is_settled) == (ChallengeState.FORWARDING, False)
    system.card_api.open.set()
    proven = await patient
    assert (proven.state, proven.signature) == (ChallengeState.VERIFIED, shown.signature)


@NAMED_OR_NOT
async def test_a_caller_in_a_hurry_is_told_that_nothing_is_signed_yet(
    system: FakeSystem, replica: Replica, is_named: bool
) -> None:
    """Given a backend that takes longer than the caller waits, then it is in progress, and the same again ends well."""
    challenge = system.issued()
    request = system.request(challenge if is_named else None)
    system.key.open.clear()
    patient = asyncio.create_task(replica.sign(request, within=PATIENCE))
    await system.until(lambda: system.key.asked == 1)
    await in_progress(replica.sign(request, within=NO_TIME))
    system.key.open.set()
    assert (await patient).state is ChallengeState.VERIFIED
    assert system.key.asked == 1


@pytest.mark.parametrize("refresh", [True, False])
@NAMED_OR_NOT
async def test_a_caller_in_a_hurry_may_come_before_there_is_a_record(
    system: FakeSystem, replica: Replica, is_named: bool, refresh: bool
) -> None:
    """Given a card API, or a store, that takes longer than the caller waits, then it is in progress."""
    challenge = system.issued()
    held_up = asyncio.Event()
    system.card_api.readable.clear()
    replica.store.before["claim"] = held_up.wait
    request = system.request(challenge if is_named else None, refresh=refresh)
    await in_progress(replica.sign(request, within=NO_TIME))
    assert not system.shelf.rows
    held_up.set()
    system.card_api.readable.set()
    await system.until(lambda: bool(system.shelf.rows))


async def test_a_caller_in_a_hurry_is_not_shown_how_an_earlier_challenge_ended(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a rejected challenge, when the next one takes its time to be fetched, then the old record is no answer."""
    system.issued()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422))
    old = await replica.sign(system.request(), within=PATIENCE)
    assert old.state is ChallengeState.REJECTED
    new = system.issued(nonce="anothernonce1")
    system.card_api.readable.clear()
    await in_progress(replica.sign(system.request(), within=NO_TIME))
    system.card_api.readable.set()
    assert (await replica.sign(system.request(), within=PATIENCE)).id == system.id_of(new)


async def test_a_caller_in_a_hurry_is_not_shown_the_challenge_that_is_being_exchanged(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a replaced challenge and ``refresh``, when the new one takes its time, then the old record is no answer."""
    old = system.challenge(nonce="old0old0")
    new = system.issued(nonce="new0new0")
    assert (await replica.sign(system.request(old), within=PATIENCE)).state is ChallengeState.SUPERSEDED
    system.card_api.readable.clear()
    await in_progress(replica.sign(system.request(old, refresh=True), within=NO_TIME))
    system.card_api.readable.set()
    assert (await replica.sign(system.request(old, refresh=True), within=PATIENCE)).id == system.id_of(new)


async def test_a_caller_in_a_hurry_is_shown_that_his_challenge_was_replaced(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a replaced challenge that may not be exchanged, then its end is the answer, however short the time."""
    old, _ = system.challenge(nonce="old0old0"), system.issued(nonce="new0new0")
    end = await replica.sign(system.request(old), within=PATIENCE)
    held_up = asyncio.Event()
    replica.store.before["claim"] = held_up.wait
    assert await replica.sign(system.request(old), within=NO_TIME) == end
    assert end.state is ChallengeState.SUPERSEDED
    held_up.set()


@pytest.mark.parametrize("whose", ["another message's", "another customer's"])
async def test_a_caller_in_a_hurry_is_not_shown_somebody_elses_record(
    system: FakeSystem, replica: Replica, whose: str
) -> None:
    """Given a nonce in other hands, when a request cannot wait for its refusal, then it sees nothing of theirs."""
    challenge = system.issued()
    await replica.sign(system.request(challenge), within=PATIENCE)
    held_up = asyncio.Event()
    replica.store.before["claim"] = held_up.wait
    if whose == "another message's":
        request = system.request(system.challenge(issued_at="2026-11-22T12:00:01Z"))
    else:
        request = system.request(challenge, customer=OTHER_CUSTOMER)
    await in_progress(replica.sign(request, within=NO_TIME))
    held_up.set()


@NAMED_OR_NOT
async def test_a_caller_whose_time_is_over_does_not_wait_for_a_store_that_hangs(
    system: FakeSystem, replica: Replica, is_named: bool
) -> None:
    """Given work that takes long and a store that answers no look, then he is told to come back all the same."""
    challenge = system.issued()
    request = system.request(challenge if is_named else None)
    system.card_api.open.clear()
    patient = asyncio.create_task(replica.sign(request, within=PATIENCE))
    await system.until(lambda: bool(system.card_api.submitted))
    hanging = asyncio.Event()
    replica.store.before["get" if is_named else "find"] = hanging.wait
    async with asyncio.timeout(5):
        await in_progress(replica.sign(request, within=NO_TIME))
    system.card_api.open.set()
    assert (await patient).state is ChallengeState.VERIFIED
