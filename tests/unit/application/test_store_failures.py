from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.application.sign_request import SignRequest
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord
from tests.unit.application.use_cases import CUSTOMER, LEASE, PATIENCE, FakeSystem, Replica

AFTER_EVERY_LEASE_AND_PAUSE = LEASE + timedelta(minutes=1)
BUSY = DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)

LOST = pytest.mark.parametrize("is_call", [True, False], ids=["call lost", "answer lost"])


def lose(replica: Replica, step: str, *, is_call: bool) -> None:
    """Have the next call of a step, or its answer, get lost."""
    if is_call:
        replica.store.lose_call(step)
    else:
        replica.store.lose_answer(step)


async def ask_in_vain(replica: Replica, request: SignRequest) -> None:
    """Ask for a signature of which the caller hears that the store cannot be reached."""
    with pytest.raises(Unavailable) as failure:
        await replica.sign(request, within=PATIENCE)
    assert failure.value.code is ErrorCode.STORE_UNAVAILABLE


async def healed(system: FakeSystem, replica: Replica, request: SignRequest, challenge: str) -> ChallengeRecord:
    """Ask again, once every lease is over; see that the one signature that was released is the one that was proven."""
    system.let_pass(AFTER_EVERY_LEASE_AND_PAUSE)
    record = await replica.sign(request, within=PATIENCE)
    assert record == system.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert {body for _, body, _ in system.card_api.submitted} == {system.card_api.submitted[-1][1]}
    assert record.signature is not None
    assert record.signature.encode() in system.card_api.submitted[-1][1]
    return record


async def test_a_store_that_is_down_lets_nothing_be_signed(system: FakeSystem, replica: Replica) -> None:
    """Given no store, then every request is told so, no key is asked, and nothing goes out."""
    challenge = system.issued()
    system.shelf.is_down = True
    for request in (system.request(challenge), system.request(), system.request(challenge, forward=False)):
        await ask_in_vain(replica, request)
    assert (system.key.asked, system.card_api.submitted) == (0, [])


@LOST
@pytest.mark.parametrize(
    ("step", "signed_by_then"),
    [("claim", 0), ("record_signature", 1), ("settle", 1)],
)
async def test_a_step_that_the_store_fails_at_is_healed_by_the_next_request(
    system: FakeSystem, replica: Replica, step: str, signed_by_then: int, is_call: bool
) -> None:
    """Given a store that fails half-way, then the caller hears it; the same request again ends well."""
    challenge = system.issued()
    lose(replica, step, is_call=is_call)
    await ask_in_vain(replica, system.request(challenge))
    assert system.key.signed == signed_by_then
    await healed(system, replica, system.request(challenge), challenge)


async def test_a_claim_that_was_never_made_is_made_at_once(system: FakeSystem, replica: Replica) -> None:
    """Given a claim that the store never heard of, when asked again, then no lease has to end first."""
    challenge = system.issued()
    replica.store.lose_call("claim")
    await ask_in_vain(replica, system.request(challenge))
    assert not system.shelf.rows
    record = await replica.sign(system.request(challenge), within=PATIENCE)
    assert (record.state, record.fencing_token) == (ChallengeState.VERIFIED, 1)


async def test_a_claim_whose_answer_was_lost_is_held_until_its_lease_ends(system: FakeSystem, hasty: Replica) -> None:
    """Given a claim that nobody knows to be his, then it is in progress for all, and free after the lease."""
    challenge = system.issued()
    hasty.store.lose_answer("claim")
    await ask_in_vain(hasty, system.request(challenge))
    with pytest.raises(Unavailable) as refusal:
        await hasty.sign(system.request(challenge), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    system.let_pass(LEASE)
    assert (await hasty.sign(system.request(challenge), within=PATIENCE)).state is ChallengeState.VERIFIED
    assert system.key.signed == 1


async def test_a_signature_that_was_not_recorded_is_made_anew(system: FakeSystem, replica: Replica) -> None:
    """Given a signature that the store never heard of, then nobody else did, and after the lease another is made."""
    challenge = system.issued()
    replica.store.lose_call("record_signature")
    await ask_in_vain(replica, system.request(challenge))
    assert (system.record(challenge).state, system.record(challenge).signature) == (ChallengeState.CLAIMED, None)
    assert not system.card_api.submitted
    await healed(system, replica, system.request(challenge), challenge)
    assert system.key.signed == 2


@pytest.mark.parametrize("forward", [True, False])
async def test_a_signature_that_was_recorded_unheard_is_the_one_released(
    system: FakeSystem, replica: Replica, forward: bool
) -> None:
    """Given a recording whose answer was lost, when asked again, then the recorded signature is given; none is made."""
    challenge = system.issued()
    replica.store.lose_answer("record_signature")
    await ask_in_vain(replica, system.request(challenge, forward=forward))
    recorded = system.record(challenge).signature
    assert recorded is not None
    record = await healed(system, replica, system.request(challenge), challenge)
    assert (record.signature, system.key.signed) == (recorded, 1)


@LOST
async def test_a_release_that_fails_keeps_the_nonce_for_the_same_message(
    system: FakeSystem, replica: Replica, is_call: bool
) -> None:
    """Given key backend and store both failing, then the same message is signed once they are well."""
    challenge = system.issued()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "It is down.")
    lose(replica, "release", is_call=is_call)
    await ask_in_vain(replica, system.request(challenge))
    system.key.failure = None
    await healed(system, replica, system.request(challenge), challenge)
    assert system.key.signed == 1


@LOST
async def test_a_delivery_whose_settling_failed_is_not_delivered_as_another(
    system: FakeSystem, replica: Replica, is_call: bool
) -> None:
    """Given a proof that could not be written down, then asking again repeats the same bytes under the same key."""
    challenge = system.issued()
    lose(replica, "settle", is_call=is_call)
    await ask_in_vain(replica, system.request(challenge))
    assert system.card_api.customers[CUSTOMER].status == "active"
    record = await healed(system, replica, system.request(challenge), challenge)
    assert len(system.card_api.submitted) == record.attempts == (2 if is_call else 1)
    assert system.key.signed == 1


@LOST
@pytest.mark.parametrize("step", ["defer", "begin_forwarding", "expire", "get"])
async def test_a_wait_for_the_card_api_that_the_store_fails_at_is_healed_too(
    system: FakeSystem, replica: Replica, step: str, is_call: bool
) -> None:
    """Given a busy card API, when the store fails while we wait, then asking again ends well."""
    challenge = system.issued()
    system.card_api.verdicts.append(BUSY)
    lose(replica, step, is_call=is_call)
    await ask_in_vain(replica, system.request(challenge))
    await healed(system, replica, system.request(challenge), challenge)
    assert system.key.signed == 1


@LOST
async def test_a_look_for_the_newest_record_that_fails_is_healed(
    system: FakeSystem, replica: Replica, is_call: bool
) -> None:
    """Given no challenge, when the store cannot be asked for the newest one, then nothing is fetched or signed."""
    challenge = system.issued()
    lose(replica, "find", is_call=is_call)
    await ask_in_vain(replica, system.request())
    assert (system.card_api.readings, system.key.asked) == (0, 0)
    await healed(system, replica, system.request(), challenge)


async def test_an_outage_behind_a_recorded_signature_ends_with_its_delivery(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a store that goes down during the POST, then recovery delivers the same again and settles it."""
    challenge = system.issued()

    async def go_down() -> None:
        system.shelf.is_down = True

    replica.store.before["settle"] = go_down
    await ask_in_vain(replica, system.request(challenge))
    system.shelf.is_down = False
    system.let_pass(LEASE)
    assert await system.replica().tick() == 1
    assert system.record(challenge).state is ChallengeState.VERIFIED
    assert len(system.card_api.submitted) == 2
