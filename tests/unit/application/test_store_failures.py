from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.application.sign_request import SignRequest
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord
from tests.unit.application.fake_system import CUSTOMER, LEASE, LONG_TIMEOUT, FakeSystem, Replica

AFTER_EVERY_LEASE_AND_PAUSE = LEASE + timedelta(minutes=1)
BUSY = DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)

LOST_CALL_OR_REPLY = pytest.mark.parametrize("is_call", [True, False], ids=["call_lost", "reply_lost"])


def lose(replica: Replica, step: str, *, is_call: bool) -> None:
    """Make the next call of a step, or its reply, get lost."""
    if is_call:
        replica.store.lose_call(step)
    else:
        replica.store.lose_answer(step)


async def check_store_unavailable(replica: Replica, request: SignRequest) -> None:
    """Check that a request fails with ``store_unavailable``."""
    with pytest.raises(Unavailable) as failure:
        await replica.sign(request, within=LONG_TIMEOUT)
    assert failure.value.code is ErrorCode.STORE_UNAVAILABLE


async def retry_after_leases(
    system: FakeSystem, replica: Replica, request: SignRequest, challenge: str
) -> ChallengeRecord:
    """Repeat the request after every lease has ended; check that the released signature is the one that was sent."""
    system.advance(AFTER_EVERY_LEASE_AND_PAUSE)
    record = await replica.sign(request, within=LONG_TIMEOUT)
    assert record == system.record_of(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert {body for _, body, _ in system.card_api.submitted} == {system.card_api.submitted[-1][1]}
    assert record.signature is not None
    assert record.signature.encode() in system.card_api.submitted[-1][1]
    return record


async def test_nothing_is_signed_while_store_is_down(system: FakeSystem, replica: Replica) -> None:
    """Each request fails; no key is used and nothing is sent."""
    challenge = system.issue_challenge()
    system.shelf.is_down = True
    for request in (system.request(challenge), system.request(), system.request(challenge, forward=False)):
        await check_store_unavailable(replica, request)
    assert (system.key.asked, system.card_api.submitted) == (0, [])


@LOST_CALL_OR_REPLY
@pytest.mark.parametrize(
    ("step", "signature_count"),
    [("claim", 0), ("record_signature", 1), ("settle", 1)],
)
async def test_next_request_succeeds_after_store_failed_at_a_step(
    system: FakeSystem, replica: Replica, step: str, signature_count: int, is_call: bool
) -> None:
    """The first caller gets ``store_unavailable``."""
    challenge = system.issue_challenge()
    lose(replica, step, is_call=is_call)
    await check_store_unavailable(replica, system.request(challenge))
    assert system.key.signed == signature_count
    await retry_after_leases(system, replica, system.request(challenge), challenge)


async def test_claim_whose_call_was_lost_is_repeated_at_once(system: FakeSystem, replica: Replica) -> None:
    """The store did not receive it, so no lease has to end first."""
    challenge = system.issue_challenge()
    replica.store.lose_call("claim")
    await check_store_unavailable(replica, system.request(challenge))
    assert not system.shelf.rows
    record = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert (record.state, record.fencing_token) == (ChallengeState.VERIFIED, 1)


async def test_claim_whose_reply_was_lost_is_in_progress_until_its_lease_ends(
    system: FakeSystem, no_retry_replica: Replica
) -> None:
    """Then the same message can be claimed again."""
    challenge = system.issue_challenge()
    no_retry_replica.store.lose_answer("claim")
    await check_store_unavailable(no_retry_replica, system.request(challenge))
    with pytest.raises(Unavailable) as error:
        await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    system.advance(LEASE)
    assert (
        await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    ).state is ChallengeState.VERIFIED
    assert system.key.signed == 1


async def test_signature_whose_recording_call_was_lost_is_made_again(system: FakeSystem, replica: Replica) -> None:
    """The first signature was never returned or sent."""
    challenge = system.issue_challenge()
    replica.store.lose_call("record_signature")
    await check_store_unavailable(replica, system.request(challenge))
    assert (system.record_of(challenge).state, system.record_of(challenge).signature) == (ChallengeState.CLAIMED, None)
    assert not system.card_api.submitted
    await retry_after_leases(system, replica, system.request(challenge), challenge)
    assert system.key.signed == 2


@pytest.mark.parametrize("forward", [True, False])
async def test_signature_whose_recording_reply_was_lost_is_the_one_returned(
    system: FakeSystem, replica: Replica, forward: bool
) -> None:
    """No second signature is made."""
    challenge = system.issue_challenge()
    replica.store.lose_answer("record_signature")
    await check_store_unavailable(replica, system.request(challenge, forward=forward))
    recorded = system.record_of(challenge).signature
    assert recorded is not None
    record = await retry_after_leases(system, replica, system.request(challenge), challenge)
    assert (record.signature, system.key.signed) == (recorded, 1)


@LOST_CALL_OR_REPLY
async def test_failed_release_keeps_nonce_for_same_message(system: FakeSystem, replica: Replica, is_call: bool) -> None:
    """Key backend and store fail; later the same message is signed."""
    challenge = system.issue_challenge()
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The key backend is down.")
    lose(replica, "release", is_call=is_call)
    await check_store_unavailable(replica, system.request(challenge))
    system.key.failure = None
    await retry_after_leases(system, replica, system.request(challenge), challenge)
    assert system.key.signed == 1


@LOST_CALL_OR_REPLY
async def test_delivery_whose_settle_failed_is_repeated_with_same_body_and_key(
    system: FakeSystem, replica: Replica, is_call: bool
) -> None:
    """The card API has accepted it before."""
    challenge = system.issue_challenge()
    lose(replica, "settle", is_call=is_call)
    await check_store_unavailable(replica, system.request(challenge))
    assert system.card_api.customers[CUSTOMER].status == "active"
    record = await retry_after_leases(system, replica, system.request(challenge), challenge)
    assert len(system.card_api.submitted) == record.attempts == (2 if is_call else 1)
    assert system.key.signed == 1


@LOST_CALL_OR_REPLY
@pytest.mark.parametrize("step", ["defer", "begin_forwarding", "expire", "get"])
async def test_next_request_succeeds_after_store_failed_during_wait_for_card_api(
    system: FakeSystem, replica: Replica, step: str, is_call: bool
) -> None:
    """The card API is busy at first."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.append(BUSY)
    lose(replica, step, is_call=is_call)
    await check_store_unavailable(replica, system.request(challenge))
    await retry_after_leases(system, replica, system.request(challenge), challenge)
    assert system.key.signed == 1


@LOST_CALL_OR_REPLY
async def test_nothing_is_fetched_if_newest_record_cannot_be_read(
    system: FakeSystem, replica: Replica, is_call: bool
) -> None:
    """The request has no challenge; the next one succeeds."""
    challenge = system.issue_challenge()
    lose(replica, "find", is_call=is_call)
    await check_store_unavailable(replica, system.request())
    assert (system.card_api.read_count, system.key.asked) == (0, 0)
    await retry_after_leases(system, replica, system.request(), challenge)


async def test_recovery_delivers_again_after_store_outage_during_post(system: FakeSystem, replica: Replica) -> None:
    """The store goes down before the record is settled."""
    challenge = system.issue_challenge()

    async def go_down() -> None:
        system.shelf.is_down = True

    replica.store.before["settle"] = go_down
    await check_store_unavailable(replica, system.request(challenge))
    system.shelf.is_down = False
    system.advance(LEASE)
    assert await system.add_replica().run_round() == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert len(system.card_api.submitted) == 2
