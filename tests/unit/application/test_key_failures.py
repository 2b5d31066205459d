from __future__ import annotations

from datetime import timedelta

import pytest

from signer.domain.errors import Conflict, ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.use_cases import DEADLINE, LEASE, NOW, PATIENCE, FakeSystem, Replica

FAILURES = {
    "down": Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The backend is down.", retry_after=5),
    "lying": Unavailable(ErrorCode.KEY_SIGNATURE_INVALID, "The backend's signature is another key's."),
}
HOWEVER = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


async def refused_by_backend(system: FakeSystem, replica: Replica, challenge: str, failure: Unavailable) -> None:
    """Ask for a signature while the backend fails; it is well again afterwards."""
    system.key.failure = failure
    with pytest.raises(Unavailable) as heard:
        await replica.sign(system.request(challenge), within=PATIENCE)
    assert heard.value is failure
    system.key.failure = None


@HOWEVER
async def test_a_claim_is_given_back_when_the_backend_fails(
    system: FakeSystem, replica: Replica, failure: Unavailable
) -> None:
    """Given a backend that fails, then the caller hears why, and the nonce is released, unsigned."""
    challenge = system.issued()
    await refused_by_backend(system, replica, challenge, failure)
    record = system.record(challenge)
    assert (record.state, str(record.code), record.signature) == (ChallengeState.RELEASED, failure.code, None)
    assert record.leased_until is None
    assert not system.card_api.submitted


@HOWEVER
@pytest.mark.parametrize("is_named", [True, False], ids=["challenge given", "challenge left out"])
async def test_the_same_message_is_signed_at_once_when_the_backend_is_well(
    system: FakeSystem, replica: Replica, failure: Unavailable, is_named: bool
) -> None:
    """Given a released nonce, when the same message comes again, to whichever replica, then it goes all the way."""
    challenge = system.issued()
    await refused_by_backend(system, replica, challenge, failure)
    record = await system.replica().sign(system.request(challenge if is_named else None), within=PATIENCE)
    assert (record.state, record.code, record.fencing_token) == (ChallengeState.VERIFIED, None, 2)


@HOWEVER
async def test_a_released_nonce_is_kept_for_its_own_message(
    system: FakeSystem, replica: Replica, failure: Unavailable
) -> None:
    """Given a released nonce, when another message comes with it, then it is refused: the nonce was claimed."""
    challenge = system.issued()
    await refused_by_backend(system, replica, challenge, failure)
    with pytest.raises(Conflict) as refusal:
        await replica.sign(system.request(system.challenge(issued_at="2026-11-22T12:00:01Z")), within=PATIENCE)
    assert refusal.value.code is ErrorCode.NONCE_REUSED
    assert system.key.signed == 0


async def test_a_backend_that_stays_down_is_asked_once_a_request(system: FakeSystem, replica: Replica) -> None:
    """Given a backend that is down, then no request asks it twice, and a released nonce ends with its deadline."""
    challenge = system.issued()
    for asked in (1, 2, 3):
        await refused_by_backend(system, replica, challenge, FAILURES["down"])
        assert system.key.asked == asked
    system.let_pass(DEADLINE - NOW)
    assert await replica.tick() == 1
    record = system.record(challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_SIGNED)


async def test_a_claim_lost_while_the_backend_failed_is_followed(system: FakeSystem, replica: Replica) -> None:
    """Given a backend that fails after the lease was over, when another replica has signed, then that is the answer."""
    challenge, elsewhere = system.issued(), system.replica()

    async def sign_elsewhere() -> None:
        system.key.failure = None
        system.let_pass(LEASE)
        await elsewhere.sign(system.request(challenge), within=PATIENCE)

    system.key.failure = FAILURES["down"]
    replica.store.before["release"] = sign_elsewhere
    record = await replica.sign(system.request(challenge), within=PATIENCE)
    assert record == system.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert system.key.signed == 1


async def test_a_signature_that_comes_after_the_lease_is_forgotten_where_another_was_made(
    system: FakeSystem, replica: Replica
) -> None:
    """Given two replicas that both signed, then one signature is recorded and given to both callers."""
    challenge, elsewhere = system.issued(), system.replica()

    async def sign_elsewhere() -> None:
        system.let_pass(LEASE)
        await elsewhere.sign(system.request(challenge), within=PATIENCE)

    replica.store.before["record_signature"] = sign_elsewhere
    record = await replica.sign(system.request(challenge), within=PATIENCE)
    assert record == system.record(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert system.key.signed == 2
    assert len(system.card_api.submitted) == 1


async def test_a_signature_that_comes_after_the_lease_counts_where_nobody_else_came(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a slow backend and no other replica, then the signature is recorded: nothing else can have been signed."""
    challenge = system.issued()

    async def be_slow() -> None:
        system.let_pass(LEASE + timedelta(seconds=1))

    replica.store.before["record_signature"] = be_slow
    record = await replica.sign(system.request(challenge), within=PATIENCE)
    assert (record.state, record.fencing_token, system.key.signed) == (ChallengeState.VERIFIED, 1, 1)
