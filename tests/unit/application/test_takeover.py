"""Tests: takeover of a signature that another replica left unsettled."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, SignatureForm, Submission
from tests.support.fakes.card_api import ACTIVE
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.keys import FakeKey
from tests.unit.application.fake_system import (
    ANOTHER_SECRET_KEY,
    CUSTOMER,
    LEASE,
    LONG_TIMEOUT,
    POLICY,
    ZERO_TIMEOUT,
    FakeSystem,
    Replica,
    forwarding_limits,
)

DOWN = Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "The card API is down.")
STRICTER = {
    "domain": replace(POLICY, domains=frozenset({"api.example.com"})),
    "chain": replace(POLICY, chains=frozenset({1})),
    "URI": replace(POLICY, uris=frozenset({"https://api.example.org/v2"})),
    "age": replace(POLICY, max_age=timedelta(seconds=10)),
}
ANOTHER_OWNER = AccountId.parse(f"eip155:324:{FakeKey(ANOTHER_SECRET_KEY).address}")
GRACE_PERIOD = forwarding_limits().settle_grace_period


async def unsent(system: FakeSystem, key: FakeKey | None = None) -> str:
    """Leave a signature that is to be delivered and was never sent; return its challenge."""
    challenge, replica = system.issue_challenge(), system.add_replica()
    await system.sign_and_record(replica, challenge, forward=False, key=key)
    await replica.store.claim(system.claim_for(challenge))
    system.advance(LEASE)
    return challenge


async def maybe_sent(system: FakeSystem, key: FakeKey | None = None) -> str:
    """Leave a signature that another replica was about to send when it died; return its challenge."""
    challenge = system.issue_challenge()
    await system.sign_and_record(system.add_replica(), challenge, key=key)
    system.advance(LEASE)
    return challenge


NEVER_OR_MAYBE_SENT = pytest.mark.parametrize("leave_signature", [unsent, maybe_sent])
LeaveSignature = Callable[..., Awaitable[str]]


async def take_over(system: FakeSystem, replica: Replica, challenge: str) -> ChallengeRecord:
    """Take over a challenge that is due; return its record."""
    record = await replica.forward.take_over(system.id_of(challenge))
    assert record == system.record_of(challenge)
    return system.record_of(challenge)


@NEVER_OR_MAYBE_SENT
async def test_signature_of_dead_replica_is_delivered_as_recorded(
    system: FakeSystem, replica: Replica, leave_signature: LeaveSignature
) -> None:
    """The key is not used again."""
    challenge = await leave_signature(system)
    submission = system.record_of(challenge).submission
    assert submission is not None
    record = await take_over(system, replica, challenge)
    assert record.state is ChallengeState.VERIFIED
    assert system.card_api.submitted == [(CUSTOMER, submission.body, submission.idempotency_key)]
    assert system.key.asked == 1


async def test_attempts_of_all_replicas_send_same_body_and_idempotency_key(system: FakeSystem) -> None:
    """Six replicas, one after another."""
    challenge = await maybe_sent(system)
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN)] * 5)
    for _ in range(6):
        await take_over(system, system.add_replica(), challenge)
        system.advance(timedelta(minutes=1))
    assert len(system.card_api.submitted) == 6
    assert len(set(system.card_api.submitted)) == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("policy", STRICTER.values(), ids=STRICTER)
async def test_unsent_signature_is_rejected_if_policy_forbids_it_now(system: FakeSystem, policy: SigningPolicy) -> None:
    """A former policy allowed it; the card API is not called."""
    challenge = await unsent(system)
    record = await take_over(system, system.add_replica(policy=policy), challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)
    assert (system.card_api.submitted, system.card_api.read_count) == ([], 0)


async def test_replica_whose_clock_is_behind_defers_instead_of_rejecting(system: FakeSystem) -> None:
    """By its clock the challenge was issued in the future. A replica with the right clock delivers."""
    challenge = await unsent(system)
    behind = system.add_replica(clock=FakeClock(system.clock.now() - timedelta(minutes=3)))
    record = await take_over(system, behind, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.NOT_YET_VALID)
    assert not system.card_api.submitted
    system.advance(timedelta(minutes=1))
    assert (await take_over(system, system.add_replica(), challenge)).state is ChallengeState.VERIFIED


@pytest.mark.parametrize(
    ("status", "final"),
    [
        ("initiating", (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)),
        (ACTIVE, (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)),
    ],
)
async def test_maybe_sent_signature_is_done_by_customer_status_if_policy_changed(
    system: FakeSystem, status: str, final: tuple[ChallengeState, RecordCode]
) -> None:
    """Nothing is sent again."""
    challenge = await maybe_sent(system)
    system.card_api.customers[CUSTOMER].status = status
    record = await take_over(system, system.add_replica(policy=STRICTER["domain"]), challenge)
    assert (record.state, record.code) == final
    assert not system.card_api.submitted


async def test_maybe_sent_signature_is_deferred_if_policy_changed_and_card_api_is_down(
    system: FakeSystem,
) -> None:
    """The next takeover reads the status again."""
    challenge = await maybe_sent(system)
    stricter = system.add_replica(policy=STRICTER["domain"])
    system.card_api.failures.append(DOWN)
    record = await take_over(system, stricter, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.advance(timedelta(minutes=1))
    record = await take_over(system, stricter, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)
    assert not system.card_api.submitted


DAMAGES: dict[str, Callable[[FakeSystem, str, Submission], bytes]] = {
    "no JSON": lambda system, challenge, stored: stored.body[:-1],
    "no object": lambda system, challenge, stored: b"[]",
    "no fields": lambda system, challenge, stored: b"{}",
    "no signature": lambda system, challenge, stored: stored.body.replace(stored.signature.encode(), b"AAAA"),
    "no challenge": lambda system, challenge, stored: stored.body.replace(challenge.encode(), b"aGVsbG8="),
    "another challenge": lambda system, challenge, stored: stored.body.replace(
        challenge.encode(), system.make_challenge(nonce="anothernonce1").encode()
    ),
    "another message with this nonce": lambda system, challenge, stored: stored.body.replace(
        challenge.encode(), system.make_challenge(issued_at="2026-11-22T12:00:01Z").encode()
    ),
    "another owner": lambda system, challenge, stored: stored.body.replace(
        system.owner.address.encode(), FakeKey(ANOTHER_SECRET_KEY).address.encode()
    ),
    "owner on another chain": lambda system, challenge, stored: stored.body.replace(b"eip155:324:", b"eip155:1:"),
    "owner without checksum": lambda system, challenge, stored: stored.body.replace(
        system.owner.address.encode(), system.owner.address.lower().encode()
    ),
    "one member more": lambda system, challenge, stored: stored.body[:-1] + b',"customerId":"1"}',
    "two challenges": lambda system, challenge, stored: b'{"challenge":"aGVsbG8=",' + stored.body[1:],
    "two signatures": lambda system, challenge, stored: b'{"signature":"AAAA",' + stored.body[1:],
    "two owners": lambda system, challenge, stored: b'{"ownerId":"eip155:1:0x0",' + stored.body[1:],
    "members in another order": lambda system, challenge, stored: json.dumps(
        dict(reversed(json.loads(stored.body).items())), separators=(",", ":")
    ).encode(),
    "a space more": lambda system, challenge, stored: stored.body + b" ",
    "an escaped letter": lambda system, challenge, stored: stored.body.replace(b'"challenge"', b'"\\u0063hallenge"'),
    "signature with upper-case digits": lambda system, challenge, stored: stored.body.replace(
        stored.signature.encode(), base64.b64encode(base64.b64decode(stored.signature).upper().replace(b"0X", b"0x"))
    ),
}


def replace_stored(system: FakeSystem, challenge: str, **changes: object) -> None:
    """Change the stored record."""
    record_id = system.id_of(challenge)
    row = system.shelf.rows[record_id]
    system.shelf.rows[record_id] = replace(row, record=row.record._replace(**changes))  # type: ignore[arg-type]


@NEVER_OR_MAYBE_SENT
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_damaged_body_is_rejected_and_not_sent(
    system: FakeSystem,
    replica: Replica,
    leave_signature: LeaveSignature,
    damage: Callable[[FakeSystem, str, Submission], bytes],
) -> None:
    """The stored body is not the one that was recorded."""
    challenge = await leave_signature(system)
    stored = system.record_of(challenge).submission
    assert stored is not None
    replace_stored(system, challenge, submission=Submission(damage(system, challenge, stored), stored.signature))
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@NEVER_OR_MAYBE_SENT
@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("submission", None, id="no body"),
        pytest.param("signature", "AAAA", id="another signature than in the body"),
        pytest.param("owner", ANOTHER_OWNER, id="another owner than in the id"),
        pytest.param("message_hash", "0" * 64, id="another hash than of the message"),
    ],
)
async def test_record_with_one_wrong_field_is_rejected_and_not_sent(
    system: FakeSystem, replica: Replica, leave_signature: LeaveSignature, field: str, value: object
) -> None:
    """The other fields are valid."""
    challenge = await leave_signature(system)
    replace_stored(system, challenge, **{field: value})
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@NEVER_OR_MAYBE_SENT
@pytest.mark.parametrize("form", list(SignatureForm))
async def test_body_in_either_signature_form_is_delivered(
    system: FakeSystem, replica: Replica, leave_signature: LeaveSignature, form: SignatureForm
) -> None:
    """The record was stored before ``card_api.signature_form`` was changed."""
    challenge = await leave_signature(system)
    stored = system.record_of(challenge).submission
    assert stored is not None
    submission = Submission.of(system.owner, *stored.parts(), form)
    replace_stored(system, challenge, submission=submission, signature=submission.signature)
    record = await take_over(system, replica, challenge)
    assert record.state is ChallengeState.VERIFIED
    assert [body for _, body, _ in system.card_api.submitted] == [submission.body]


async def test_record_under_id_of_another_nonce_is_rejected(system: FakeSystem, replica: Replica) -> None:
    """Everything else in the record is valid."""
    challenge = await maybe_sent(system)
    other_id = system.id_of(system.make_challenge(nonce="anothernonce1"))
    row = system.shelf.rows.pop(system.id_of(challenge))
    system.shelf.rows[other_id] = replace(row, record=row.record._replace(id=other_id))
    record = await replica.forward.take_over(other_id)
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@NEVER_OR_MAYBE_SENT
async def test_signature_of_another_key_is_rejected(
    system: FakeSystem, replica: Replica, leave_signature: LeaveSignature
) -> None:
    """It does not recover to the owner."""
    challenge = await leave_signature(system, key=FakeKey(ANOTHER_SECRET_KEY))
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@pytest.mark.parametrize(
    ("upstream", "final"),
    [
        ("proven", (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)),
        ("not proven", (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)),
        ("customer unknown", (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)),
    ],
)
async def test_customer_status_settles_maybe_sent_signature_after_deadline(
    system: FakeSystem, replica: Replica, upstream: str, final: tuple[ChallengeState, RecordCode]
) -> None:
    """Nothing is sent after the deadline."""
    challenge = await maybe_sent(system)
    if upstream == "proven":
        system.card_api.customers[CUSTOMER].status = ACTIVE
    elif upstream == "customer unknown":
        system.card_api.customers.clear()
    system.advance(timedelta(hours=1))
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == final
    assert (record.attempts, record.submission) == (1, None)
    assert not system.card_api.submitted


@pytest.mark.parametrize("policy", [POLICY, STRICTER["domain"]], ids=["same_policy", "changed_policy"])
async def test_maybe_sent_signature_expires_after_grace_period(system: FakeSystem, policy: SigningPolicy) -> None:
    """Not before, because the card API may still be processing the POST. The policy makes no difference."""
    challenge = await maybe_sent(system)
    replica = system.add_replica(policy=policy)
    for wait in (system.record_of(challenge).expires_at - system.clock.now(), GRACE_PERIOD - timedelta(seconds=1)):
        system.advance(wait)
        record = await take_over(system, replica, challenge)
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.advance(timedelta(seconds=1))
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert not system.card_api.submitted


async def test_replica_with_a_fast_clock_waits_for_the_grace_period_of_the_store(system: FakeSystem) -> None:
    """Its own clock is two hours ahead: by that, the card API could not be processing the POST any more."""
    challenge = await maybe_sent(system)
    system.advance(system.record_of(challenge).expires_at - system.clock.now())
    replica = system.add_replica(clock=FakeClock(system.clock.now() + timedelta(hours=2)))
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)


async def test_proof_within_grace_period_settles_as_verified(system: FakeSystem) -> None:
    """The card API finishes a POST just after the deadline."""
    challenge = await maybe_sent(system)
    replica = system.add_replica()
    system.advance(system.record_of(challenge).expires_at - system.clock.now())
    assert not (await take_over(system, replica, challenge)).state.is_final
    system.card_api.customers[CUSTOMER].status = ACTIVE
    system.advance(timedelta(seconds=1))
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@pytest.mark.parametrize("policy", [POLICY, STRICTER["domain"]], ids=["same_policy", "changed_policy"])
async def test_status_is_read_for_an_hour_after_deadline_while_card_api_is_down(
    system: FakeSystem, policy: SigningPolicy
) -> None:
    """After that hour the record is settled as unknown."""
    replica = system.add_replica(policy=policy)
    challenge = await maybe_sent(system)
    system.advance(system.record_of(challenge).expires_at - system.clock.now())
    for minute in range(60):
        system.card_api.failures.append(DOWN)
        record = await take_over(system, replica, challenge)
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN), minute
        system.advance(timedelta(minutes=1))
    system.card_api.failures.append(DOWN)
    record = await take_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
    assert not system.card_api.submitted


async def test_nothing_is_sent_an_hour_after_first_attempt(system: FakeSystem) -> None:
    """The card API may have forgotten the Idempotency-Key, although the challenge has not expired."""
    lenient = system.add_replica(policy=replace(POLICY, max_age=timedelta(hours=3)), work_timeout=ZERO_TIMEOUT)
    challenge = system.issue_challenge()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.UNKNOWN))
    await lenient.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.advance(timedelta(hours=1))
    record = await take_over(system, lenient, challenge)
    assert system.clock.now() < record.expires_at
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.advance(record.expires_at - system.clock.now() + GRACE_PERIOD)
    record = await take_over(system, lenient, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert len(system.card_api.submitted) == 1


async def test_unsent_challenge_expires_after_deadline_with_code_of_its_state(
    system: FakeSystem, replica: Replica
) -> None:
    """The card API is not called."""
    unsigned, not_forwarded, sendable = (system.make_challenge(nonce=f"anothernonce{n}") for n in range(3))
    await replica.store.claim(system.claim_for(unsigned))
    await system.sign_and_record(replica, not_forwarded, forward=False)
    await system.sign_and_record(replica, sendable, forward=False)
    await replica.store.claim(system.claim_for(sendable))
    system.advance(timedelta(hours=1))
    codes = [(await take_over(system, replica, challenge)).code for challenge in (unsigned, not_forwarded, sendable)]
    assert codes == [RecordCode.NOT_SIGNED, RecordCode.NOT_FORWARDED, RecordCode.NOT_DELIVERED]
    assert (system.card_api.submitted, system.card_api.read_count) == ([], 0)


async def test_takeover_of_record_that_is_not_due_does_nothing(system: FakeSystem, replica: Replica) -> None:
    """The record is unknown, final, not to be delivered, leased or paused."""
    leased, not_forwarded, final, paused = (system.make_challenge(nonce=f"anothernonce{n}") for n in range(4))
    await system.sign_and_record(replica, leased)
    await system.sign_and_record(replica, not_forwarded, forward=False)
    for challenge, verdict in ((final, DeliveryVerdict.ACCEPTED), (paused, DeliveryVerdict.NOT_PROCESSED)):
        system.card_api.verdicts.append(DeliveryResult(verdict))
        await replica.forward.attempt(await system.sign_and_record(replica, challenge))
    system.audit.events.clear()
    system.card_api.submitted.clear()
    for challenge in (system.make_challenge(nonce="unknownnonce"), leased, not_forwarded, final, paused):
        assert await system.add_replica().forward.take_over(system.id_of(challenge)) is None
    assert not system.audit.events
    assert not system.card_api.submitted
