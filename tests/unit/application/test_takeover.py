"""What is done with a signature that somebody else left unsettled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from signer.application.forward_signature import ForwardingLimits
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
    House,
    Replica,
)

DOWN = Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "It is down.")
STRICTER = {
    "domain": replace(POLICY, domains=frozenset({"api.example.com"})),
    "chain": replace(POLICY, chains=frozenset({1})),
    "URI": replace(POLICY, uris=frozenset({"https://api.example.org/v2"})),
    "age": replace(POLICY, max_age=timedelta(seconds=10)),
}
AT_WORK = ForwardingLimits().settle_grace_period


async def unsent(house: House, key: FakeKey | None = None) -> str:
    """Leave a signature that is to be forwarded, and of which nothing was sent."""
    challenge, replica = house.issued(), house.replica()
    await house.signed(replica, challenge, forward=False, key=key)
    await replica.store.claim(house.claim(challenge))
    house.let_pass(LEASE)
    return challenge


async def perhaps_sent(house: House, key: FakeKey | None = None) -> str:
    """Leave a signature that was about to be sent by a replica that is gone."""
    challenge = house.issued()
    await house.signed(house.replica(), challenge, key=key)
    house.let_pass(LEASE)
    return challenge


HOWEVER_LEFT = pytest.mark.parametrize("left", [unsent, perhaps_sent])
Left = Callable[..., Awaitable[str]]


async def taken_over(house: House, replica: Replica, challenge: str) -> ChallengeRecord:
    """Take a challenge over; there is something to take."""
    record = await replica.forward.take_over(house.id_of(challenge))
    assert record == house.record(challenge)
    return house.record(challenge)


@HOWEVER_LEFT
async def test_a_signature_left_by_a_dead_replica_is_delivered(house: House, replica: Replica, left: Left) -> None:
    """Given a signature whose holder is gone, then it is delivered as it was recorded; no key is asked again."""
    challenge = await left(house)
    submission = house.record(challenge).submission
    assert submission is not None
    record = await taken_over(house, replica, challenge)
    assert record.state is ChallengeState.VERIFIED
    assert house.card_api.submitted == [(CUSTOMER, submission.body, submission.idempotency_key)]
    assert house.key.asked == 1


async def test_every_attempt_has_the_same_body_and_the_same_idempotency_key(house: House) -> None:
    """Given attempts of several replicas, then what goes out is the same each time."""
    challenge = await perhaps_sent(house)
    house.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN)] * 5)
    for _ in range(6):
        await taken_over(house, house.replica(), challenge)
        house.let_pass(timedelta(minutes=1))
    assert len(house.card_api.submitted) == 6
    assert len(set(house.card_api.submitted)) == 1
    assert house.record(challenge).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("policy", STRICTER.values(), ids=STRICTER)
async def test_what_our_policy_would_not_sign_is_not_sent(house: House, policy: SigningPolicy) -> None:
    """Given an unsent signature that a former policy allowed, when ours does not, then it is rejected."""
    challenge = await unsent(house)
    record = await taken_over(house, house.replica(policy=policy), challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)
    assert (house.card_api.submitted, house.card_api.readings) == ([], 0)


async def test_a_replica_whose_clock_is_behind_ends_nothing(house: House) -> None:
    """Given a signature of a challenge that seems to come from the future, then it is left for a better clock."""
    challenge = await unsent(house)
    behind = house.replica(clock=FakeClock(house.clock.now() - timedelta(minutes=3)))
    record = await taken_over(house, behind, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.NOT_YET_VALID)
    assert not house.card_api.submitted
    house.let_pass(timedelta(minutes=1))
    assert (await taken_over(house, house.replica(), challenge)).state is ChallengeState.VERIFIED


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("initiating", (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)),
        (ACTIVE, (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)),
    ],
)
async def test_what_was_perhaps_sent_under_a_former_policy_is_asked_about(
    house: House, status: str, end: tuple[ChallengeState, RecordCode]
) -> None:
    """Given a policy that changed after an attempt, then the record ends as the card API knows it."""
    challenge = await perhaps_sent(house)
    house.card_api.customers[CUSTOMER].status = status
    record = await taken_over(house, house.replica(policy=STRICTER["domain"]), challenge)
    assert (record.state, record.code) == end
    assert not house.card_api.submitted


async def test_what_was_perhaps_sent_under_a_former_policy_stays_open_where_nobody_can_be_asked(house: House) -> None:
    """Given a policy that changed after an attempt, when the question fails, then it is asked again."""
    challenge = await perhaps_sent(house)
    stricter = house.replica(policy=STRICTER["domain"])
    house.card_api.failures.append(DOWN)
    record = await taken_over(house, stricter, challenge)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    house.let_pass(timedelta(minutes=1))
    record = await taken_over(house, stricter, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.POLICY_CHANGED)
    assert not house.card_api.submitted


DAMAGES: dict[str, Callable[[House, str, Submission], bytes]] = {
    "no JSON": lambda house, challenge, stored: stored.body[:-1],
    "no object": lambda house, challenge, stored: b"[]",
    "no fields": lambda house, challenge, stored: b"{}",
    "no signature": lambda house, challenge, stored: stored.body.replace(stored.signature.encode(), b"AAAA"),
    "no challenge": lambda house, challenge, stored: stored.body.replace(challenge.encode(), b"aGVsbG8="),
    "another challenge": lambda house, challenge, stored: stored.body.replace(
        challenge.encode(), house.challenge(nonce="anothernonce1").encode()
    ),
    "another message with this nonce": lambda house, challenge, stored: stored.body.replace(
        challenge.encode(), house.challenge(issued_at="2026-11-22T12:00:01Z").encode()
    ),
}


def replace_stored(house: House, challenge: str, **changes: object) -> None:
    """Have the shelf hold something else than what was recorded."""
    known_as = house.id_of(challenge)
    row = house.shelf.rows[known_as]
    house.shelf.rows[known_as] = replace(row, record=replace(row.record, **changes))  # type: ignore[arg-type]


@HOWEVER_LEFT
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_body_is_not_sent(
    house: House, replica: Replica, left: Left, damage: Callable[[House, str, Submission], bytes]
) -> None:
    """Given a stored body that is not what was recorded, then it is rejected, and does not go out."""
    challenge = await left(house)
    stored = house.record(challenge).submission
    assert stored is not None
    replace_stored(house, challenge, submission=Submission(damage(house, challenge, stored), stored.signature))
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not house.card_api.submitted


@HOWEVER_LEFT
async def test_a_lost_body_is_not_guessed(house: House, replica: Replica, left: Left) -> None:
    """Given a record without its body, then it is rejected."""
    challenge = await left(house)
    replace_stored(house, challenge, submission=None)
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not house.card_api.submitted


@HOWEVER_LEFT
async def test_a_record_under_another_ones_id_is_not_sent(house: House, replica: Replica, left: Left) -> None:
    """Given a record whose owner is not the one of its id, then it is rejected, although its signature is right."""
    challenge = await left(house)
    replace_stored(house, challenge, owner=replace(house.owner, address=FakeKey(ANOTHER_SECRET_KEY).address))
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not house.card_api.submitted


@HOWEVER_LEFT
async def test_a_record_of_another_message_is_not_sent(house: House, replica: Replica, left: Left) -> None:
    """Given a record whose hash is not its message's, then it is rejected, although the signature is right."""
    challenge = await left(house)
    replace_stored(house, challenge, message_hash="0" * 64)
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not house.card_api.submitted


async def test_a_record_that_lies_in_another_ones_place_is_not_sent(house: House, replica: Replica) -> None:
    """Given a record under an id that is not its nonce's, then it is rejected, although all else is right."""
    challenge = await perhaps_sent(house)
    elsewhere = house.id_of(house.challenge(nonce="anothernonce1"))
    row = house.shelf.rows.pop(house.id_of(challenge))
    house.shelf.rows[elsewhere] = replace(row, record=replace(row.record, id=elsewhere))
    record = await replica.forward.take_over(elsewhere)
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not house.card_api.submitted


@HOWEVER_LEFT
async def test_a_signature_of_another_key_is_not_sent(house: House, replica: Replica, left: Left) -> None:
    """Given a stored signature that recovers to somebody else, then it is rejected."""
    challenge = await left(house, key=FakeKey(ANOTHER_SECRET_KEY))
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert not house.card_api.submitted


@pytest.mark.parametrize(
    ("upstream", "end"),
    [
        ("proven", (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)),
        ("not proven", (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)),
        ("customer gone", (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)),
    ],
)
async def test_past_the_deadline_the_card_api_says_how_it_ended(
    house: House, replica: Replica, upstream: str, end: tuple[ChallengeState, RecordCode]
) -> None:
    """Given an attempt of unknown outcome, when the deadline is over, then it is asked about, and nothing is POSTed."""
    challenge = await perhaps_sent(house)
    if upstream == "proven":
        house.card_api.customers[CUSTOMER].status = ACTIVE
    elif upstream == "customer gone":
        house.card_api.customers.clear()
    house.let_pass(timedelta(hours=1))
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == end
    assert (record.attempts, record.submission) == (1, None)
    assert not house.card_api.submitted


@pytest.mark.parametrize("policy", [POLICY, STRICTER["domain"]], ids=["same policy", "changed policy"])
async def test_past_its_deadline_it_expires_when_no_post_can_be_at_work_any_more(
    house: House, policy: SigningPolicy
) -> None:
    """Given an attempt that proved nothing, then it expires under any policy, a while after the deadline."""
    challenge = await perhaps_sent(house)
    replica = house.replica(policy=policy)
    for wait in (house.record(challenge).expires_at - house.clock.now(), AT_WORK - timedelta(seconds=1)):
        house.let_pass(wait)
        record = await taken_over(house, replica, challenge)
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    house.let_pass(timedelta(seconds=1))
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert not house.card_api.submitted


async def test_what_the_card_api_verifies_a_moment_after_the_deadline_is_verified(house: House) -> None:
    """Given a POST that the API is still at work on when the deadline comes, then its proof is found, not lost."""
    challenge = await perhaps_sent(house)
    replica = house.replica()
    house.let_pass(house.record(challenge).expires_at - house.clock.now())
    assert not (await taken_over(house, replica, challenge)).state.is_final
    house.card_api.customers[CUSTOMER].status = ACTIVE
    house.let_pass(timedelta(seconds=1))
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@pytest.mark.parametrize("policy", [POLICY, STRICTER["domain"]], ids=["same policy", "changed policy"])
async def test_past_the_deadline_it_is_asked_until_somebody_knows(house: House, policy: SigningPolicy) -> None:
    """Given a card API that is down, then it is asked again and again; an hour after the deadline that is the end."""
    replica = house.replica(policy=policy)
    challenge = await perhaps_sent(house)
    house.let_pass(house.record(challenge).expires_at - house.clock.now())
    for minute in range(60):
        house.card_api.failures.append(DOWN)
        record = await taken_over(house, replica, challenge)
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN), minute
        house.let_pass(timedelta(minutes=1))
    house.card_api.failures.append(DOWN)
    record = await taken_over(house, replica, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.OUTCOME_UNKNOWN)
    assert not house.card_api.submitted


async def test_a_key_that_the_card_api_has_forgotten_is_not_used_again(house: House) -> None:
    """Given a first attempt more than an hour ago, then nothing is POSTed although the challenge lives; it is asked."""
    lenient = house.replica(policy=replace(POLICY, max_age=timedelta(hours=3)), work_for=NO_TIME)
    challenge = house.issued()
    house.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.UNKNOWN))
    await lenient.sign(house.request(challenge), within=PATIENCE)
    house.let_pass(timedelta(hours=1))
    record = await taken_over(house, lenient, challenge)
    assert house.clock.now() < record.expires_at
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    house.let_pass(record.expires_at - house.clock.now() + AT_WORK)
    record = await taken_over(house, lenient, challenge)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert len(house.card_api.submitted) == 1


async def test_a_challenge_past_its_deadline_that_was_never_sent_just_ends(house: House, replica: Replica) -> None:
    """Given states without an attempt, when the deadline is over, then each ends with its own reason."""
    unsigned, kept, sendable = (house.challenge(nonce=f"anothernonce{n}") for n in range(3))
    await replica.store.claim(house.claim(unsigned))
    await house.signed(replica, kept, forward=False)
    await house.signed(replica, sendable, forward=False)
    await replica.store.claim(house.claim(sendable))
    house.let_pass(timedelta(hours=1))
    ends = [(await taken_over(house, replica, challenge)).code for challenge in (unsigned, kept, sendable)]
    assert ends == [RecordCode.NOT_SIGNED, RecordCode.NOT_FORWARDED, RecordCode.NOT_DELIVERED]
    assert (house.card_api.submitted, house.card_api.readings) == ([], 0)


async def test_there_is_nothing_to_take_where_nothing_is_left(house: House, replica: Replica) -> None:
    """Given what is unknown, final, kept, held or paused, then nobody takes it."""
    held, kept, final, paused = (house.challenge(nonce=f"anothernonce{n}") for n in range(4))
    await house.signed(replica, held)
    await house.signed(replica, kept, forward=False)
    for challenge, verdict in ((final, DeliveryVerdict.ACCEPTED), (paused, DeliveryVerdict.NOT_PROCESSED)):
        house.card_api.verdicts.append(DeliveryResult(verdict))
        await replica.forward.attempt(await house.signed(replica, challenge))
    house.audit.events.clear()
    house.card_api.submitted.clear()
    for challenge in (house.challenge(nonce="unknownnonce"), held, kept, final, paused):
        assert await house.replica().forward.take_over(house.id_of(challenge)) is None
    assert not house.audit.events
    assert not house.card_api.submitted
