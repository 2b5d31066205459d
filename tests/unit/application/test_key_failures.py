from __future__ import annotations

from datetime import timedelta

import pytest

from signer.domain.errors import Conflict, ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.use_cases import DEADLINE, LEASE, NOW, PATIENCE, House, Replica

FAILURES = {
    "down": Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The backend is down.", retry_after=5),
    "lying": Unavailable(ErrorCode.KEY_SIGNATURE_INVALID, "The backend's signature is another key's."),
}
HOWEVER = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


async def refused_by_backend(house: House, replica: Replica, challenge: str, failure: Unavailable) -> None:
    """Ask for a signature while the backend fails; it is well again afterwards."""
    house.key.failure = failure
    with pytest.raises(Unavailable) as heard:
        await replica.sign(house.request(challenge), within=PATIENCE)
    assert heard.value is failure
    house.key.failure = None


@HOWEVER
async def test_a_claim_is_given_back_when_the_backend_fails(
    house: House, replica: Replica, failure: Unavailable
) -> None:
    """Given a backend that fails, then the caller hears why, and the nonce is released, unsigned."""
    challenge = house.issued()
    await refused_by_backend(house, replica, challenge, failure)
    record = house.record(challenge)
    assert (record.state, str(record.code), record.signature) == (ChallengeState.RELEASED, failure.code, None)
    assert record.leased_until is None
    assert not house.card_api.submitted


@HOWEVER
@pytest.mark.parametrize("is_named", [True, False], ids=["challenge given", "challenge left out"])
async def test_the_same_message_is_signed_at_once_when_the_backend_is_well(
    house: House, replica: Replica, failure: Unavailable, is_named: bool
) -> None:
    """Given a released nonce, when the same message comes again, to whichever replica, then it goes all the way."""
    challenge = house.issued()
    await refused_by_backend(house, replica, challenge, failure)
    record = await house.replica().sign(house.request(challenge if is_named else None), within=PATIENCE)
    assert (record.state, record.code, record.fencing_token) == (ChallengeState.VERIFIED, None, 2)


@HOWEVER
async def test_a_released_nonce_is_kept_for_its_own_message(
    house: House, replica: Replica, failure: Unavailable
) -> None:
    """Given a released nonce, when another message comes with it, then it is refused: the nonce was claimed."""
    challenge = house.issued()
    await refused_by_backend(house, replica, challenge, failure)
    with pytest.raises(Conflict) as refusal:
        await replica.sign(house.request(house.challenge(issued_at="2026-11-22T12:00:01Z")), within=PATIENCE)
    assert refusal.value.code is ErrorCode.NONCE_REUSED
    assert house.key.signed == 0


async def test_a_backend_that_stays_down_is_asked_once_a_request(house: House, replica: Replica) -> None:
    """Given a backend that is down, then no request asks it twice, and a released nonce ends with its deadline."""
    challenge = house.issued()
    for asked in (1, 2, 3):
        await refused_by_backend(house, replica, challenge, FAILURES["down"])
        assert house.key.asked == asked
    house.let_pass(DEADLINE - NOW)
    assert await replica.tick() == 1
    record = house.record(challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_SIGNED)


async def test_a_claim_lost_while_the_backend_failed_is_followed(house: House, replica: Replica) -> None:
    """Given a backend that fails after the lease was over, when another replica has signed, then that is the answer."""
    challenge, elsewhere = house.issued(), house.replica()

    async def sign_elsewhere() -> None:
        house.key.failure = None
        house.let_pass(LEASE)
        await elsewhere.sign(house.request(challenge), within=PATIENCE)

    house.key.failure = FAILURES["down"]
    replica.store.before["release"] = sign_elsewhere
    record = await replica.sign(house.request(challenge), within=PATIENCE)
    assert record == house.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert house.key.signed == 1


async def test_a_signature_that_comes_after_the_lease_is_forgotten_where_another_was_made(
    house: House, replica: Replica
) -> None:
    """Given two replicas that both signed, then one signature is recorded and given to both callers."""
    challenge, elsewhere = house.issued(), house.replica()

    async def sign_elsewhere() -> None:
        house.let_pass(LEASE)
        await elsewhere.sign(house.request(challenge), within=PATIENCE)

    replica.store.before["record_signature"] = sign_elsewhere
    record = await replica.sign(house.request(challenge), within=PATIENCE)
    assert record == house.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert house.key.signed == 2
    assert len(house.card_api.submitted) == 1


async def test_a_signature_that_comes_after_the_lease_counts_where_nobody_else_came(
    house: House, replica: Replica
) -> None:
    """Given a slow backend and no other replica, then the signature is recorded: nothing else can have been signed."""
    challenge = house.issued()

    async def be_slow() -> None:
        house.let_pass(LEASE + timedelta(seconds=1))

    replica.store.before["record_signature"] = be_slow
    record = await replica.sign(house.request(challenge), within=PATIENCE)
    assert (record.state, record.fencing_token, house.key.signed) == (ChallengeState.VERIFIED, 1, 1)
