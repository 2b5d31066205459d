"""What is done with a signature that somebody else left unsettled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, Submission
from tests.support.fakes.card_api import ACTIVE
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.keys import FakeKey
from tests.unit.application.use_cases import (
    ANOTHER_SECRET_KEY,
    CUSTOMER,
    LEASE,
    NO_TIME,
    PATIENCE,
    POLICY,
    FakeSystem,
    Replica,
    forwarding_limits,
)

DOWN = Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "It is down.")
STRICTER = {
    "domain": replace(POLICY, domains=frozenset({"api.example.com"})),
    "chain": replace(POLICY, chains=frozenset({1})),
    "URI": replace(POLICY, uris=frozenset({"https://api.example.org/v2"})),
    "age": replace(POLICY, max_age=timedelta(seconds=10)),
}
GRACE_PERIOD = forwarding_limits().settle_grace_period


async def unsent(system: FakeSystem, key: FakeKey | None = None) -> str:
    """Leave a signature that is to be forwarded, and of which nothing was sent."""
    challenge, replica = system.issued(), system.replica()
    await system.signed(replica, challenge, forward=False, key=key)
    await replica.store.claim(system.claim(challenge))
    system.let_pass(LEASE)
    return challenge


async def perhaps_sent(system: FakeSystem, key: FakeKey | None = None) -> str:
    """Leave a signature that was about to be sent by a replica that is gone."""
    challenge = system.issued()
    await system.signed(system.replica(), challenge, key=key)
    system.let_pass(LEASE)
    return challenge


HOWEVER_LEFT = pytest.mark.parametrize("left", [unsent, perhaps_sent])
Left = Callable[..., Awaitable[str]]


async def taken_over(system: FakeSystem, replica: Replica, challenge: str) -> ChallengeRecord:
    """Take a challenge over; there is something to take."""
    record = await replica.forward.take_over(system.id_of(challenge))
    assert record == system.record(challenge)
    return system.record(challenge)


@HOWEVER_LEFT
async def test_a_signature_left_by_a_dead_replica_is_delivered(
    system: FakeSystem, replica: Replica, left: Left
) -> None:
    """Given a signature whose holder is gone, then it is delivered as it was recorded; no key is asked again."""
    challenge = await left(system)
    submission = system.record(challenge).submission
    assert submission is not None
    record = await taken_over(system, replica, challenge)
    assert record.state is ChallengeState.VERIFIED
    assert system.card_api.submitted == [(CUSTOMER, submission.body, submission.idempotency_key)]
    assert system.key.asked == 1


async def test_every_attempt_has_the_same_body_and_the_same_idempotency_key(system: FakeSystem) -> None:
    """Given attempts of several replicas, then what goes out is the same each time."""
    challenge = await perhaps_sent(system)
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN)] * 5)
    for _ in range(6):
        await taken_over(system, system.replica(), challenge)
        system.let_pass(timedelta(minutes=1))
    assert len(system.card_api.submitted) == 6
    assert len(set(system.card_api.submitted)) == 1
    assert system.record(challenge).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("policy", STRICTER.values(), ids=STRICTER)
async def test_what_our_policy_would_not_sign_is_not_sent(system: FakeSystem, policy: SigningPolicy) -> None:
    """Given an unsent signature that a former policy allowed, when ours does not, then it is rejected."""
    challenge = await unsent(system)
    record = await taken_over(system, system.replica(policy=policy), challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)
    assert (system.card_api.submitted, system.card_api.readings) == ([], 0)


async def test_a_replica_whose_clock_is_behind_ends_nothing(system: FakeSystem) -> None:
    """Given a signature of a challenge that seems to come from the future, then it is left for a better clock."""
    challenge = await unsent(system)
    behind = system.replica(clock=FakeClock(system.clock.now() - timedelta(minutes=3)))
    record = await taken_over(system, behind, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.NOT_YET_VALID)
    assert not system.card_api.submitted
    system.let_pass(timedelta(minutes=1))
    assert (await taken_over(system, system.replica(), challenge)).state is ChallengeState.VERIFIED


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("initiating", (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)),
        (ACTIVE, (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)),
    ],
)
async def test_what_was_perhaps_sent_under_a_former_policy_is_asked_about(
    system: FakeSystem, status: str, end: tuple[ChallengeState, RecordCode]
) -> None:
    """Given a policy that changed after an attempt, then the record ends as the card API knows it."""
    challenge = await perhaps_sent(system)
    system.card_api.customers[CUSTOMER].status = status
    record = await taken_over(system, system.replica(policy=STRICTER["domain"]), challenge)
    assert (record.state, record.code) == end
    assert not system.card_api.submitted


async def test_what_was_perhaps_sent_under_a_former_policy_stays_open_where_nobody_can_be_asked(
    system: FakeSystem,
) -> None:
    """Given a policy that changed after an attempt, when the question fails, then it is asked again."""
    challenge = await perhaps_sent(system)
    stricter = system.replica(policy=STRICTER["domain"])
    system.card_api.failures.append(DOWN)
    record = await taken_over(system, stricter, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.let_pass(timedelta(minutes=1))
    record = await taken_over(system, stricter, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)
    assert not system.card_api.submitted


DAMAGES: dict[str, Callable[[FakeSystem, str, Submission], bytes]] = {
    "no JSON": lambda system, challenge, stored: stored.body[:-1],
    "no object": lambda system, challenge, stored: b"[]",
    "no fields": lambda system, challenge, stored: b"{}",
    "no signature": lambda system, challenge, stored: stored.body.replace(stored.signature.encode(), b"AAAA"),
    "no challenge": lambda system, challenge, stored: stored.body.replace(challenge.encode(), b"aGVsbG8="),
    "another challenge": lambda system, challenge, stored: stored.body.replace(
        challenge.encode(), system.challenge(nonce="anothernonce1").encode()
    ),
    "another message with this nonce": lambda system, challenge, stored: stored.body.replace(
        challenge.encode(), system.challenge(issued_at="2026-11-22T12:00:01Z").encode()
    ),
}


def replace_stored(system: FakeSystem, challenge: str, **changes: object) -> None:
    """Have the shelf hold something else than what was recorded."""
    known_as = system.id_of(challenge)
    row = system.shelf.rows[known_as]
    system.shelf.rows[known_as] = replace(row, record=replace(row.record, **changes))  # type: ignore[arg-type]


@HOWEVER_LEFT
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_body_is_not_sent(
    system: FakeSystem, replica: Replica, left: Left, damage: Callable[[FakeSystem, str, Submission], bytes]
) -> None:
    """Given a stored body that is not what was recorded, then it is rejected, and does not go out."""
    challenge = await left(system)
    stored = system.record(challenge).submission
    assert stored is not None
    replace_stored(system, challenge, submission=Submission(damage(system, challenge, stored), stored.signature))
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@HOWEVER_LEFT
async def test_a_lost_body_is_not_guessed(system: FakeSystem, replica: Replica, left: Left) -> None:
    """Given a record without its body, then it is rejected."""
    challenge = await left(system)
    replace_stored(system, challenge, submission=None)
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@HOWEVER_LEFT
async def test_a_record_under_another_ones_id_is_not_sent(system: FakeSystem, replica: Replica, left: Left) -> None:
    """Given a record whose owner is not the one of its id, then it is rejected, although its signature is right."""
    challenge = await left(system)
    replace_stored(system, challenge, owner=replace(system.owner, address=FakeKey(ANOTHER_SECRET_KEY).address))
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@HOWEVER_LEFT
async def test_a_record_of_another_message_is_not_sent(system: FakeSystem, replica: Replica, left: Left) -> None:
    """Given a record whose hash is not its message's, then it is rejected, although the signature is right."""
    challenge = await left(system)
    replace_stored(system, challenge, message_hash="0" * 64)
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


async def test_a_record_that_lies_in_another_ones_place_is_not_sent(system: FakeSystem, replica: Replica) -> None:
    """Given a record under an id that is not its nonce's, then it is rejected, although all else is right."""
    challenge = await perhaps_sent(system)
    elsewhere = system.id_of(system.challenge(nonce="anothernonce1"))
    row = system.shelf.rows.pop(system.id_of(challenge))
    system.shelf.rows[elsewhere] = replace(row, record=replace(row.record, id=elsewhere))
    record = await replica.forward.take_over(elsewhere)
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@HOWEVER_LEFT
async def test_a_signature_of_another_key_is_not_sent(system: FakeSystem, replica: Replica, left: Left) -> None:
    """Given a stored signature that recovers to somebody else, then it is rejected."""
    challenge = await left(system, key=FakeKey(ANOTHER_SECRET_KEY))
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not system.card_api.submitted


@pytest.mark.parametrize(
    ("upstream", "end"),
    [
        ("proven", (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)),
        ("not proven", (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)),
        ("customer gone", (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)),
    ],
)
async def test_past_the_deadline_the_card_api_says_how_it_ended(
    system: FakeSystem, replica: Replica, upstream: str, end: tuple[ChallengeState, RecordCode]
) -> None:
    """Given an attempt of unknown outcome, when the deadline is over, then it is asked about, and nothing is POSTed."""
    challenge = await perhaps_sent(system)
    if upstream == "proven":
        system.card_api.customers[CUSTOMER].status = ACTIVE
    elif upstream == "customer gone":
        system.card_api.customers.clear()
    system.let_pass(timedelta(hours=1))
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == end
    assert (record.attempts, record.submission) == (1, None)
    assert not system.card_api.submitted


@pytest.mark.parametrize("policy", [POLICY, STRICTER["domain"]], ids=["same policy", "changed policy"])
async def test_past_its_deadline_it_expires_when_no_post_can_be_at_work_any_more(
    system: FakeSystem, policy: SigningPolicy
) -> None:
    """Given an attempt that proved nothing, then it expires under any policy, a while after the deadline."""
    challenge = await perhaps_sent(system)
    replica = system.replica(policy=policy)
    for wait in (system.record(challenge).expires_at - system.clock.now(), GRACE_PERIOD - timedelta(seconds=1)):
        system.let_pass(wait)
        record = await taken_over(system, replica, challenge)
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.let_pass(timedelta(seconds=1))
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert not system.card_api.submitted


async def test_what_the_card_api_verifies_a_moment_after_the_deadline_is_verified(system: FakeSystem) -> None:
    """Given a POST that the API is still at work on when the deadline comes, then its proof is found, not lost."""
    challenge = await perhaps_sent(system)
    replica = system.replica()
    system.let_pass(system.record(challenge).expires_at - system.clock.now())
    assert not (await taken_over(system, replica, challenge)).state.is_final
    system.card_api.customers[CUSTOMER].status = ACTIVE
    system.let_pass(timedelta(seconds=1))
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@pytest.mark.parametrize("policy", [POLICY, STRICTER["domain"]], ids=["same policy", "changed policy"])
async def test_past_the_deadline_it_is_asked_until_somebody_knows(system: FakeSystem, policy: SigningPolicy) -> None:
    """Given a card API that is down, then it is asked again and again; an hour after the deadline that is the end."""
    replica = system.replica(policy=policy)
    challenge = await perhaps_sent(system)
    system.let_pass(system.record(challenge).expires_at - system.clock.now())
    for minute in range(60):
        system.card_api.failures.append(DOWN)
        record = await taken_over(system, replica, challenge)
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN), minute
        system.let_pass(timedelta(minutes=1))
    system.card_api.failures.append(DOWN)
    record = await taken_over(system, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
    assert not system.card_api.submitted


async def test_a_key_that_the_card_api_has_forgotten_is_not_used_again(system: FakeSystem) -> None:
    """Given a first attempt more than an hour ago, then nothing is POSTed although the challenge lives; it is asked."""
    lenient = system.replica(policy=replace(POLICY, max_age=timedelta(hours=3)), work_timeout=NO_TIME)
    challenge = system.issued()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.UNKNOWN))
    await lenient.sign(system.request(challenge), within=PATIENCE)
    system.let_pass(timedelta(hours=1))
    record = await taken_over(system, lenient, challenge)
    assert system.clock.now() < record.expires_at
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.let_pass(record.expires_at - system.clock.now() + GRACE_PERIOD)
    record = await taken_over(system, lenient, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert len(system.card_api.submitted) == 1


async def test_a_challenge_past_its_deadline_that_was_never_sent_just_ends(
    system: FakeSystem, replica: Replica
) -> None:
    """Given states without an attempt, when the deadline is over, then each ends with its own reason."""
    unsigned, kept, sendable = (system.challenge(nonce=f"anothernonce{n}") for n in range(3))
    await replica.store.claim(system.claim(unsigned))
    await system.signed(replica, kept, forward=False)
    await system.signed(replica, sendable, forward=False)
    await replica.store.claim(system.claim(sendable))
    system.let_pass(timedelta(hours=1))
    ends = [(await taken_over(system, replica, challenge)).code for challenge in (unsigned, kept, sendable)]
    assert ends == [RecordCode.NOT_SIGNED, RecordCode.NOT_FORWARDED, RecordCode.NOT_DELIVERED]
    assert (system.card_api.submitted, system.card_api.readings) == ([], 0)


async def test_there_is_nothing_to_take_where_nothing_is_left(system: FakeSystem, replica: Replica) -> None:
    """Given what is unknown, final, kept, held or paused, then nobody takes it."""
    held, kept, final, paused = (system.challenge(nonce=f"anothernonce{n}") for n in range(4))
    await system.signed(replica, held)
    await system.signed(replica, kept, forward=False)
    for challenge, verdict in ((final, DeliveryVerdict.ACCEPTED), (paused, DeliveryVerdict.NOT_PROCESSED)):
        system.card_api.verdicts.append(DeliveryResult(verdict))
        await replica.forward.attempt(await system.signed(replica, challenge))
    system.audit.events.clear()
    system.card_api.submitted.clear()
    for challenge in (system.challenge(nonce="unknownnonce"), held, kept, final, paused):
        assert await system.replica().forward.take_over(system.id_of(challenge)) is None
    assert not system.audit.events
    assert not system.card_api.submitted
