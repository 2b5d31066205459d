from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.challenge import decode_challenge
from signer.domain.errors import ErrorCode, RefusedByPolicy
from signer.domain.ethereum import EvmSignature
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import SignatureForm
from tests.support.fakes.keys import FakeVerifier
from tests.unit.application.fake_system import (
    CUSTOMER,
    DEADLINE,
    ISSUED_AT,
    LONG_TIMEOUT,
    NOW,
    FakeSystem,
    Replica,
    signing_limits,
)

MINUTE = timedelta(minutes=1)
LATER_BY = {
    "at_once": timedelta(0),
    "before_deadline": DEADLINE - NOW - timedelta(seconds=10),
    "after_deadline": timedelta(hours=2),
    "a_week_later": timedelta(days=7),
}
LATER = pytest.mark.parametrize("later", LATER_BY.values(), ids=LATER_BY)
WITH_OR_WITHOUT_CHALLENGE = pytest.mark.parametrize(
    "has_challenge", [True, False], ids=["with_challenge", "without_challenge"]
)


@WITH_OR_WITHOUT_CHALLENGE
async def test_challenge_is_signed_delivered_and_verified(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """The signature is the owner's, over the exact bytes of the challenge."""
    challenge = system.issue_challenge()
    record = await replica.sign(system.request(challenge if has_challenge else None), within=LONG_TIMEOUT)
    assert record.state is ChallengeState.VERIFIED
    assert (record.id, record.customer_id, record.owner) == (system.id_of(challenge), CUSTOMER, system.owner)
    assert (record.code, record.attempts, record.submission) == (None, 1, None)
    assert (record.issued_at, record.expires_at, record.created_at) == (ISSUED_AT, DEADLINE, NOW)
    assert record.signature is not None
    signature = EvmSignature.from_bytes(bytes.fromhex(base64.b64decode(record.signature).decode()[2:]))
    message = decode_challenge(challenge).message_to_sign()
    assert FakeVerifier().signer_of(message, signature) == system.key.address
    [(customer, body, _)] = system.card_api.submitted
    assert (customer, body) == (CUSTOMER, system.submission_for(challenge, signature).body)
    assert system.card_api.customers[CUSTOMER].status == "active"


async def test_record_expires_at_earlier_expiration_time_of_message(system: FakeSystem, replica: Replica) -> None:
    """It is earlier than the maximum age."""
    challenge = system.issue_challenge(expiration_time="2026-11-22T12:10:00Z")
    record = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert record.expires_at == ISSUED_AT + 10 * MINUTE


async def test_raw_signature_form_is_base64_of_65_bytes(system: FakeSystem, replica: Replica) -> None:
    """The other form is hexadecimal text."""
    sign = system.add_replica(signing=signing_limits(signature_form=SignatureForm.RAW)).sign
    challenge = system.issue_challenge()
    record = await sign(system.request(challenge), within=LONG_TIMEOUT)
    assert record.signature is not None
    signature = EvmSignature.from_bytes(base64.b64decode(record.signature))
    message = decode_challenge(challenge).message_to_sign()
    assert FakeVerifier().signer_of(message, signature) == system.key.address


async def test_signature_without_forward_is_not_delivered(system: FakeSystem, replica: Replica) -> None:
    """Recovery does not deliver it either."""
    challenge = system.issue_challenge()
    record = await replica.sign(system.request(challenge, forward=False), within=LONG_TIMEOUT)
    assert (record.state, record.attempts, record.is_done) == (ChallengeState.SIGNED, 0, True)
    assert record.signature is not None
    system.advance(10 * MINUTE)
    assert await replica.run_round() == 0
    assert not system.card_api.submitted


@WITH_OR_WITHOUT_CHALLENGE
async def test_later_request_with_forward_delivers_stored_signature(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """No second signature is made."""
    challenge = system.issue_challenge()
    stored = await replica.sign(system.request(challenge, forward=False), within=LONG_TIMEOUT)
    later = await replica.sign(system.request(challenge if has_challenge else None), within=LONG_TIMEOUT)
    assert (later.state, later.signature) == (ChallengeState.VERIFIED, stored.signature)
    assert (system.key.signed, len(system.card_api.submitted)) == (1, 1)


@WITH_OR_WITHOUT_CHALLENGE
async def test_later_request_without_forward_does_not_stop_delivery(
    system: FakeSystem, no_retry_replica: Replica, has_challenge: bool
) -> None:
    """It returns the record, and recovery delivers."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503))
    waiting = await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    request = system.request(challenge if has_challenge else None, forward=False)
    assert await no_retry_replica.sign(request, within=LONG_TIMEOUT) == waiting
    assert (waiting.state, waiting.forward) == (ChallengeState.SIGNED, True)
    system.advance(MINUTE)
    assert await no_retry_replica.run_round() == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED


async def test_forward_of_second_caller_applies_to_running_signing(system: FakeSystem, replica: Replica) -> None:
    """Both callers get the delivered record."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()
    system.key.open.clear()
    without_forward = asyncio.create_task(replica.sign(system.request(challenge, forward=False), within=LONG_TIMEOUT))
    await system.wait_until(lambda: system.key.asked == 1)
    with_forward = asyncio.create_task(other_replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: system.record_of(challenge).forward)
    system.key.open.set()
    assert await without_forward == await with_forward == system.record_of(challenge)
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert (system.key.signed, len(system.card_api.submitted)) == (1, 1)


@LATER
@WITH_OR_WITHOUT_CHALLENGE
async def test_same_request_again_returns_same_record(
    system: FakeSystem, replica: Replica, later: timedelta, has_challenge: bool
) -> None:
    """At any later time; nothing is signed or sent."""
    challenge = system.issue_challenge()
    first = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.advance(later)
    read_count = system.card_api.read_count
    system.issue_challenge(nonce="anothernonce1")  # it must not be fetched
    again = await system.add_replica().sign(system.request(challenge if has_challenge else None), within=LONG_TIMEOUT)
    assert again == first
    assert (system.key.asked, len(system.card_api.submitted), system.card_api.read_count) == (1, 1, read_count)


@LATER
@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (DeliveryVerdict.ALREADY_SIGNED, ChallengeState.ALREADY_SIGNED),
        (DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, ChallengeState.REJECTED),
    ],
)
async def test_same_request_after_failed_proof_returns_same_final_record(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, state: ChallengeState, later: timedelta
) -> None:
    """No second signature is made."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.append(DeliveryResult(verdict))
    first = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.advance(later)
    assert first.state is state
    assert await replica.sign(system.request(challenge), within=LONG_TIMEOUT) == first
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


@pytest.mark.parametrize("end", ["rejected", "superseded", "expired"])
async def test_request_without_challenge_fetches_new_one_after_failed_proof(
    system: FakeSystem, replica: Replica, end: str
) -> None:
    """The last challenge of the customer has no proof."""
    old, new = system.issue_challenge(), system.make_challenge(nonce="anothernonce1", issued_at="2026-11-22T12:00:20Z")
    if end == "rejected":
        system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422))
    elif end == "superseded":
        system.card_api.issue(CUSTOMER, new)
    await replica.sign(system.request(old, forward=end != "expired"), within=LONG_TIMEOUT)
    if end == "expired":
        system.advance(timedelta(hours=1))
        await replica.run_round()
        new = system.make_challenge(nonce="anothernonce1", issued_at="2026-11-22T13:00:20Z")
    assert system.record_of(old).state == end
    system.card_api.issue(CUSTOMER, new)
    record = await replica.sign(system.request(), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)


async def test_signature_made_after_deadline_is_expired_and_not_sent(system: FakeSystem, replica: Replica) -> None:
    """The key backend took longer than the challenge is valid."""
    challenge = system.issue_challenge()
    system.key.open.clear()
    work = asyncio.create_task(replica.sign(system.request(challenge), within=LONG_TIMEOUT))
    await system.wait_until(lambda: system.key.asked == 1)
    system.advance(timedelta(hours=1))
    system.key.open.set()
    record = await work
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert not system.card_api.submitted


async def test_unsigned_challenge_is_refused_after_deadline(system: FakeSystem, replica: Replica) -> None:
    """The replica that had claimed it died."""
    challenge = system.issue_challenge()
    await replica.store.claim(system.claim_for(challenge))
    system.advance(timedelta(hours=2))
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_EXPIRED
    assert system.key.asked == 0


async def test_challenge_whose_record_was_deleted_is_refused_as_expired(system: FakeSystem, replica: Replica) -> None:
    """After the retention time no second signature is possible."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.advance(timedelta(days=31))
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_EXPIRED
    assert system.key.asked == 1
