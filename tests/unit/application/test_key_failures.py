from __future__ import annotations

from datetime import timedelta

import pytest

from signer.domain.errors import Conflict, ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.unit.application.fake_system import DEADLINE, LEASE, LONG_TIMEOUT, NOW, FakeSystem, Replica

FAILURES = {
    "unavailable": Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The backend is down.", retry_after=5),
    "invalid signature": Unavailable(ErrorCode.KEY_SIGNATURE_INVALID, "The backend's signature is another key's."),
}
EACH_FAILURE = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


async def fail_signing(system: FakeSystem, replica: Replica, challenge: str, failure: Unavailable) -> None:
    """Check that a request fails with the backend's error; the backend works again afterwards."""
    system.key.failure = failure
    with pytest.raises(Unavailable) as error:
        await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert error.value is failure
    system.key.failure = None


@EACH_FAILURE
async def test_claim_is_released_if_key_backend_fails(
    system: FakeSystem, replica: Replica, failure: Unavailable
) -> None:
    """The caller gets the backend's error; the record is unsigned."""
    challenge = system.issue_challenge()
    await fail_signing(system, replica, challenge, failure)
    record = system.record_of(challenge)
    assert (record.state, str(record.code), record.signature) == (ChallengeState.RELEASED, failure.code, None)
    assert record.leased_until is None
    assert not system.card_api.submitted


@EACH_FAILURE
@pytest.mark.parametrize("has_challenge", [True, False], ids=["with_challenge", "without_challenge"])
async def test_same_message_is_signed_at_once_after_backend_recovers(
    system: FakeSystem, replica: Replica, failure: Unavailable, has_challenge: bool
) -> None:
    """Another replica gets the request."""
    challenge = system.issue_challenge()
    await fail_signing(system, replica, challenge, failure)
    record = await system.add_replica().sign(system.request(challenge if has_challenge else None), within=LONG_TIMEOUT)
    assert (record.state, record.code, record.fencing_token) == (ChallengeState.VERIFIED, None, 2)


@EACH_FAILURE
async def test_released_nonce_is_refused_for_another_message(
    system: FakeSystem, replica: Replica, failure: Unavailable
) -> None:
    """The nonce was claimed for the first message."""
    challenge = system.issue_challenge()
    await fail_signing(system, replica, challenge, failure)
    with pytest.raises(Conflict) as error:
        await replica.sign(system.request(system.make_challenge(issued_at="2026-11-22T12:00:01Z")), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.NONCE_REUSED
    assert system.key.signed == 0


async def test_each_request_calls_failing_backend_once(system: FakeSystem, replica: Replica) -> None:
    """The released nonce expires at its deadline."""
    challenge = system.issue_challenge()
    for calls in (1, 2, 3):
        await fail_signing(system, replica, challenge, FAILURES["unavailable"])
        assert system.key.asked == calls
    system.advance(DEADLINE - NOW)
    assert await replica.run_round() == 1
    record = system.record_of(challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_SIGNED)


async def test_caller_gets_other_replicas_result_if_lease_is_lost_before_release(
    system: FakeSystem, replica: Replica
) -> None:
    """The backend fails after the lease has ended, and another replica has signed."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()

    async def sign_on_other_replica() -> None:
        system.key.failure = None
        system.advance(LEASE)
        await other_replica.sign(system.request(challenge), within=LONG_TIMEOUT)

    system.key.failure = FAILURES["unavailable"]
    replica.store.before["release"] = sign_on_other_replica
    record = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert record == system.record_of(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert system.key.signed == 1


async def test_signature_after_lease_is_discarded_if_other_replica_signed(system: FakeSystem, replica: Replica) -> None:
    """Both callers get the recorded signature."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()

    async def sign_on_other_replica() -> None:
        system.advance(LEASE)
        await other_replica.sign(system.request(challenge), within=LONG_TIMEOUT)

    replica.store.before["record_signature"] = sign_on_other_replica
    record = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert record == system.record_of(challenge)
    assert record.state is ChallengeState.VERIFIED
    assert system.key.signed == 2
    assert len(system.card_api.submitted) == 1


async def test_signature_after_lease_is_recorded_if_no_other_replica_claimed(
    system: FakeSystem, replica: Replica
) -> None:
    """No other signature can exist."""
    challenge = system.issue_challenge()

    async def be_slow() -> None:
        system.advance(LEASE + timedelta(seconds=1))

    replica.store.before["record_signature"] = be_slow
    record = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert (record.state, record.fencing_token, system.key.signed) == (ChallengeState.VERIFIED, 1, 1)
