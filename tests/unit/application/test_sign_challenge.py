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
from tests.unit.application.use_cases import (
    CUSTOMER,
    DEADLINE,
    ISSUED_AT,
    NOW,
    PATIENCE,
    FakeSystem,
    Replica,
    signing_limits,
)

MINUTE = timedelta(minutes=1)
SPANS = {
    "at once": timedelta(0),
    "in its last seconds": DEADLINE - NOW - timedelta(seconds=10),
    "after its time": timedelta(hours=2),
    "a week later": timedelta(days=7),
}
LATER = pytest.mark.parametrize("later", SPANS.values(), ids=SPANS)
NAMED_OR_NOT = pytest.mark.parametrize("is_named", [True, False], ids=["challenge given", "challenge left out"])


@NAMED_OR_NOT
async def test_a_challenge_goes_all_the_way(system: FakeSystem, replica: Replica, is_named: bool) -> None:
    """Given an issued challenge, when it is asked for, then the owner's signature of those very bytes is proven."""
    challenge = system.issued()
    record = await replica.sign(system.request(challenge if is_named else None), within=PATIENCE)
    assert record.state is ChallengeState.VERIFIED
    assert (record.id, record.customer_id, record.owner) == (system.id_of(challenge), CUSTOMER, system.owner)
    assert (record.code, record.attempts, record.submission) == (None, 1, None)
    assert (record.issued_at, record.expires_at, record.created_at) == (ISSUED_AT, DEADLINE, NOW)
    assert record.signature is not None
    signature = EvmSignature.from_bytes(bytes.fromhex(base64.b64decode(record.signature).decode()[2:]))
    message = decode_challenge(challenge).message_to_sign()
    assert FakeVerifier().signer_of(message, signature) == system.key.address
    [(customer, body, _)] = system.card_api.submitted
    assert (customer, body) == (CUSTOMER, system.submission(challenge, signature).body)
    assert system.card_api.customers[CUSTOMER].status == "active"


async def test_a_record_ends_with_its_expiration_time_where_that_is_earlier(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a message that ends within the hour, then nothing is delivered past that."""
    challenge = system.issued(expiration_time="2026-11-22T12:10:00Z")
    record = await replica.sign(system.request(challenge), within=PATIENCE)
    assert record.expires_at == ISSUED_AT + 10 * MINUTE


async def test_the_signature_has_the_form_that_the_settings_name(system: FakeSystem, replica: Replica) -> None:
    """Given the form ``raw``, then the field is the base64 of 65 bytes."""
    raw_form = system.replica(signing=signing_limits(signature_form=SignatureForm.RAW)).sign
    challenge = system.issued()
    record = await raw_form(system.request(challenge), within=PATIENCE)
    assert record.signature is not None
    signature = EvmSignature.from_bytes(base64.b64decode(record.signature))
    message = decode_challenge(challenge).message_to_sign()
    assert FakeVerifier().signer_of(message, signature) == system.key.address


async def test_a_signature_that_is_not_to_be_forwarded_stays_here(system: FakeSystem, replica: Replica) -> None:
    """Given ``forward: false``, then the caller gets the signature and the card API nothing, from recovery neither."""
    challenge = system.issued()
    record = await replica.sign(system.request(challenge, forward=False), within=PATIENCE)
    assert (record.state, record.attempts, record.is_settled) == (ChallengeState.SIGNED, 0, True)
    assert record.signature is not None
    system.let_pass(10 * MINUTE)
    assert await replica.tick() == 0
    assert not system.card_api.submitted


@NAMED_OR_NOT
async def test_what_was_kept_can_be_forwarded_later(system: FakeSystem, replica: Replica, is_named: bool) -> None:
    """Given a signature kept here, when the same is asked with ``forward``, then that very signature is delivered."""
    challenge = system.issued()
    kept = await replica.sign(system.request(challenge, forward=False), within=PATIENCE)
    later = await replica.sign(system.request(challenge if is_named else None), within=PATIENCE)
    assert (later.state, later.signature) == (ChallengeState.VERIFIED, kept.signature)
    assert (system.key.signed, len(system.card_api.submitted)) == (1, 1)


@NAMED_OR_NOT
async def test_what_is_to_be_forwarded_stays_so(system: FakeSystem, hasty: Replica, is_named: bool) -> None:
    """Given a delivery that waits, when asked with ``forward: false``, then it is shown, and goes on all the same."""
    challenge = system.issued()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503))
    waiting = await hasty.sign(system.request(challenge), within=PATIENCE)
    named = challenge if is_named else None
    assert await hasty.sign(system.request(named, forward=False), within=PATIENCE) == waiting
    assert (waiting.state, waiting.forward) == (ChallengeState.SIGNED, True)
    system.let_pass(MINUTE)
    assert await hasty.tick() == 1
    assert system.record(challenge).state is ChallengeState.VERIFIED


async def test_a_wish_to_forward_reaches_a_signing_under_way(system: FakeSystem, replica: Replica) -> None:
    """Given a signing for ``forward: false``, when another caller wants it forwarded, then both see it delivered."""
    challenge, elsewhere = system.issued(), system.replica()
    system.key.open.clear()
    keeping = asyncio.create_task(replica.sign(system.request(challenge, forward=False), within=PATIENCE))
    await system.until(lambda: system.key.asked == 1)
    forwarding = asyncio.create_task(elsewhere.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: system.record(challenge).forward)
    system.key.open.set()
    assert await keeping == await forwarding == system.record(challenge)
    assert system.record(challenge).state is ChallengeState.VERIFIED
    assert (system.key.signed, len(system.card_api.submitted)) == (1, 1)


@LATER
@NAMED_OR_NOT
async def test_the_same_request_again_gives_the_same_answer(
    system: FakeSystem, replica: Replica, later: timedelta, is_named: bool
) -> None:
    """Given a proven challenge, when it is asked for again, then the answer is the same, whenever; nothing is done."""
    challenge = system.issued()
    first = await replica.sign(system.request(challenge), within=PATIENCE)
    system.let_pass(later)
    readings = system.card_api.readings
    system.issued(nonce="anothernonce1")  # another proof is not wanted
    again = await system.replica().sign(system.request(challenge if is_named else None), within=PATIENCE)
    assert again == first
    assert (system.key.asked, len(system.card_api.submitted), system.card_api.readings) == (1, 1, readings)


@LATER
@pytest.mark.parametrize(
    ("verdict", "end"),
    [
        (DeliveryVerdict.ALREADY_SIGNED, ChallengeState.ALREADY_SIGNED),
        (DeliveryVerdict.REFUSED, ChallengeState.REJECTED),
        (DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, ChallengeState.REJECTED),
    ],
)
async def test_a_challenge_that_ended_otherwise_is_answered_so_again(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, end: ChallengeState, later: timedelta
) -> None:
    """Given a final state, when its challenge is asked for again, then it is that state and not another signature."""
    challenge = system.issued()
    system.card_api.verdicts.append(DeliveryResult(verdict))
    first = await replica.sign(system.request(challenge), within=PATIENCE)
    system.let_pass(later)
    assert first.state is end
    assert await replica.sign(system.request(challenge), within=PATIENCE) == first
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


@pytest.mark.parametrize("end", ["rejected", "superseded", "expired"])
async def test_without_a_challenge_what_ended_without_proof_is_followed_by_a_new_one(
    system: FakeSystem, replica: Replica, end: str
) -> None:
    """Given a customer whose last challenge came to nothing, when no challenge is named, then a new one is fetched."""
    old, new = system.issued(), system.challenge(nonce="anothernonce1", issued_at="2026-11-22T12:00:20Z")
    if end == "rejected":
        system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422))
    elif end == "superseded":
        system.card_api.issue(CUSTOMER, new)
    await replica.sign(system.request(old, forward=end != "expired"), within=PATIENCE)
    if end == "expired":
        system.let_pass(timedelta(hours=1))
        await replica.tick()
        new = system.challenge(nonce="anothernonce1", issued_at="2026-11-22T13:00:20Z")
    assert system.record(old).state == end
    system.card_api.issue(CUSTOMER, new)
    record = await replica.sign(system.request(), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)


async def test_a_signature_that_came_past_its_deadline_is_ended(system: FakeSystem, replica: Replica) -> None:
    """Given a backend that took longer than the challenge had, then nothing is POSTed, and the caller hears the end."""
    challenge = system.issued()
    system.key.open.clear()
    asked = asyncio.create_task(replica.sign(system.request(challenge), within=PATIENCE))
    await system.until(lambda: system.key.asked == 1)
    system.let_pass(timedelta(hours=1))
    system.key.open.set()
    record = await asked
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert not system.card_api.submitted


async def test_what_was_never_signed_in_its_time_is_refused_afterwards(system: FakeSystem, replica: Replica) -> None:
    """Given a claim whose holder died, when it is asked for past its time, then it is refused."""
    challenge = system.issued()
    await replica.store.claim(system.claim(challenge))
    system.let_pass(timedelta(hours=2))
    with pytest.raises(RefusedByPolicy) as refusal:
        await replica.sign(system.request(challenge), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CHALLENGE_EXPIRED
    assert system.key.asked == 0


async def test_what_is_forgotten_after_the_retention_is_refused_as_expired(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a record that is gone, when its challenge is asked for, then it is too old to be signed again."""
    challenge = system.issued()
    await replica.sign(system.request(challenge), within=PATIENCE)
    system.let_pass(timedelta(days=31))
    with pytest.raises(RefusedByPolicy) as refusal:
        await replica.sign(system.request(challenge), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CHALLENGE_EXPIRED
    assert system.key.asked == 1
