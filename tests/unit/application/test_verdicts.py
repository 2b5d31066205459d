"""What follows each of the card API's answers to a delivery."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict, LeasedRecord
from signer.domain.errors import BadUpstream, ErrorCode, SignerError, Unavailable, UpstreamTimeout
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.support.fakes.card_api import ACTIVE
from tests.support.messages import to_base64
from tests.unit.application.use_cases import CUSTOMER, OTHER_CUSTOMER, FakeSystem, Replica

FIRST_PAUSE = timedelta(milliseconds=250)
INSTANT = timedelta(microseconds=1)
LONG_AFTER = timedelta(minutes=2)
UNREACHABLE: list[SignerError] = [
    Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "It is down."),
    UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "It took too long."),
    BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "It makes no sense."),
]
HOWEVER_UNREACHABLE = pytest.mark.parametrize("failure", UNREACHABLE, ids=lambda error: error.code)
ENDS = {
    DeliveryVerdict.ACCEPTED: (ChallengeState.VERIFIED, None),
    DeliveryVerdict.ALREADY_SIGNED: (ChallengeState.ALREADY_SIGNED, RecordCode.ALREADY_SIGNED_UPSTREAM),
    DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED: (ChallengeState.REJECTED, RecordCode.IDEMPOTENCY_KEY_REFUSED),
}
PAUSES = {
    DeliveryVerdict.CREDENTIALS_REFUSED: RecordCode.CREDENTIALS_REFUSED,
    DeliveryVerdict.NOT_PROCESSED: RecordCode.CARD_API_BUSY,
    DeliveryVerdict.UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
    DeliveryVerdict.CONFLICT_AMBIGUOUS: RecordCode.CARD_API_BUSY,
    DeliveryVerdict.CUSTOMER_UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
}


async def answered(system: FakeSystem, replica: Replica, delivery: DeliveryResult) -> ChallengeRecord:
    """Deliver a signature, and have the card API answer so."""
    held = await system.signed(replica, system.issued())
    system.card_api.verdicts.append(delivery)
    return await replica.forward.attempt(held)


async def check_pause(system: FakeSystem, replica: Replica, record: ChallengeRecord, pause: timedelta) -> LeasedRecord:
    """See that a record is put down for exactly so long, for everybody; then take it up again."""
    assert (record.state, record.leased_until) == (ChallengeState.SIGNED, None)
    system.let_pass(pause - INSTANT)
    assert await replica.store.due(1) == []
    assert await replica.store.begin_forwarding(record.id) is None
    system.let_pass(INSTANT)
    assert await replica.store.due(1) == [record.id]
    held = await replica.store.begin_forwarding(record.id)
    assert held is not None
    return held


@pytest.mark.parametrize("verdict", DeliveryVerdict)
async def test_no_verdict_leaves_a_record_without_a_next_step(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """Given any answer, then the record is final and its body dropped, or it waits and is found when it is due."""
    record = await answered(system, replica, DeliveryResult(verdict))
    if record.state.is_final:
        assert record.submission is None
    else:
        assert (record.state, record.leased_until) == (ChallengeState.SIGNED, None)
        assert record.submission is not None
    system.let_pass(timedelta(minutes=1))
    assert await replica.store.due(1) == ([] if record.state.is_final else [record.id])


@pytest.mark.parametrize(("verdict", "end"), ENDS.items())
async def test_an_answer_that_settles(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, end: tuple[ChallengeState, RecordCode | None]
) -> None:
    """Given an answer that leaves nothing open, then the record ends as it says; nothing more is asked."""
    record = await answered(system, replica, DeliveryResult(verdict))
    assert (record.state, record.code) == end
    assert record.signature is not None
    assert system.card_api.readings == 0


@pytest.mark.parametrize(("verdict", "code"), PAUSES.items())
async def test_an_answer_that_leaves_it_open_is_followed_by_the_same_again(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, code: RecordCode
) -> None:
    """Given no outcome, then after the pause the same bytes go out under the same Idempotency-Key."""
    record = await answered(system, replica, DeliveryResult(verdict, 503))
    assert record.code == code
    held = await check_pause(system, replica, record, FIRST_PAUSE)
    again = await replica.forward.attempt(held)
    assert (again.state, again.code, again.attempts) == (ChallengeState.VERIFIED, None, 2)
    assert system.card_api.submitted[0] == system.card_api.submitted[1]


@pytest.mark.parametrize(
    "verdict", [DeliveryVerdict.NOT_PROCESSED, DeliveryVerdict.UNKNOWN, DeliveryVerdict.CONFLICT_AMBIGUOUS]
)
@pytest.mark.parametrize(
    ("asked", "pause"),
    [(timedelta(seconds=20), timedelta(seconds=20)), (timedelta(milliseconds=1), FIRST_PAUSE)],
    ids=["longer than ours", "shorter than ours"],
)
async def test_rfc9110_10_2_3_retry_after_is_a_lower_bound(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, asked: timedelta, pause: timedelta
) -> None:
    """Given ``Retry-After``, then nothing goes out before it is over, nor before our own pause is."""
    record = await answered(system, replica, DeliveryResult(verdict, 429, retry_after=asked))
    await check_pause(system, replica, record, pause)


async def test_rfc9110_10_2_3_retry_after_the_deadline_ends_with_the_deadline(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a ``Retry-After`` of a day, then at the deadline, and not later, it is asked what became of it."""
    record = await answered(
        system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN, 503, retry_after=timedelta(days=1))
    )
    held = await check_pause(system, replica, record, record.expires_at - system.clock.now())
    assert held.deliverable is False


async def test_an_answer_that_was_lost_is_given_again(system: FakeSystem, replica: Replica) -> None:
    """Given a delivery that was accepted unheard, when it is repeated, then the record is verified."""
    system.card_api.lost_answers = 1
    held = await system.signed(replica, system.issued())
    record = await replica.forward.attempt(held)
    assert system.card_api.customers[CUSTOMER].status == ACTIVE
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


async def test_a_conflict_that_is_not_clear_is_settled_by_a_proven_customer(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a 409 of unknown meaning, when the customer is proven, then the challenge had been signed."""
    held = await system.signed(replica, system.issued())
    system.card_api.customers[CUSTOMER].status = ACTIVE
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(held)
    assert (record.state, record.code) == (ChallengeState.ALREADY_SIGNED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@HOWEVER_UNREACHABLE
async def test_a_conflict_that_is_not_clear_stays_open_where_nobody_can_be_asked(
    system: FakeSystem, replica: Replica, failure: SignerError
) -> None:
    """Given a 409 of unknown meaning, when the question fails, then the same is sent again."""
    system.card_api.failures.append(failure)
    record = await answered(system, replica, DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    assert record.code == RecordCode.CARD_API_BUSY
    await check_pause(system, replica, record, FIRST_PAUSE)


async def test_a_conflict_that_is_not_clear_stays_open_where_the_customer_is_gone(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a 409 of unknown meaning, when the customer is not known any more, then the next POST will say so."""
    held = await system.signed(replica, system.issued())
    system.card_api.customers.clear()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(held)
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)


async def test_a_404_of_a_customer_that_is_not_there_ends_it(system: FakeSystem, replica: Replica) -> None:
    """Given a 404, when the customer is not known either, then the signature is rejected, and was sent once."""
    held = await system.signed(replica, system.challenge())
    record = await replica.forward.attempt(held)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)
    assert (len(system.card_api.submitted), system.card_api.readings) == (1, 1)


@pytest.mark.parametrize("status", ["initiating", ACTIVE])
async def test_a_stray_404_ends_nothing(system: FakeSystem, replica: Replica, status: str) -> None:
    """Given a 404 that some gateway made, when the customer is there, then the same goes out again and is answered."""
    held = await system.signed(replica, system.issued())
    system.card_api.customers[CUSTOMER].status = status
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404))
    record = await replica.forward.attempt(held)
    assert record.code == RecordCode.CARD_API_UNAVAILABLE
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state.is_proof


async def test_a_gateway_that_has_lost_the_card_api_ends_nothing(system: FakeSystem, replica: Replica) -> None:
    """Given 404 to everything, tokens too, then it is nobody's answer; once the API is back, the same is delivered."""
    held = await system.signed(replica, system.issued())
    system.card_api.is_lost = True
    record = await replica.forward.attempt(held)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_UNAVAILABLE)
    system.card_api.is_lost = False
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


async def test_a_gateway_that_has_lost_the_card_api_does_not_expire_what_was_sent(
    system: FakeSystem, replica: Replica
) -> None:
    """Given 404 to everything past the deadline, then whether it was delivered stays open until the API is back."""
    system.card_api.lost_answers = 1
    held = await system.signed(replica, system.issued())
    record = await replica.forward.attempt(held)
    system.card_api.is_lost = True
    system.let_pass(record.expires_at - system.clock.now() + LONG_AFTER)
    lost = await replica.forward.take_over(record.id)
    assert lost is not None
    assert (lost.state, lost.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.card_api.is_lost = False
    system.let_pass(timedelta(minutes=1))
    found = await replica.forward.take_over(record.id)
    assert found is not None
    assert (found.state, found.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@HOWEVER_UNREACHABLE
async def test_a_404_ends_nothing_where_nobody_can_be_asked(
    system: FakeSystem, replica: Replica, failure: SignerError
) -> None:
    """Given a 404, when the question fails, then nothing is concluded from it."""
    system.card_api.failures.append(failure)
    record = await answered(system, replica, DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404))
    await check_pause(system, replica, record, FIRST_PAUSE)


async def third_answer(system: FakeSystem, replica: Replica, delivery: DeliveryResult) -> ChallengeRecord:
    """Have the card API answer three deliveries of one signature so."""
    record = await answered(system, replica, delivery)
    for _ in range(2):
        system.card_api.verdicts.append(delivery)
        system.let_pass(timedelta(minutes=1))
        taken = await replica.forward.take_over(record.id)
        assert taken is not None
        record = taken
    assert record.attempts == 3
    return record


async def test_the_third_5xx_is_followed_by_a_question(system: FakeSystem, replica: Replica) -> None:
    """Given an API that keeps its 500 under the key, when the customer is proven, then the signature was verified."""
    replayed = DeliveryResult(DeliveryVerdict.UNKNOWN, 500)
    held = await system.signed(replica, system.issued())
    system.card_api.verdicts.extend([replayed] * 3)
    record = await replica.forward.attempt(held)
    system.card_api.customers[CUSTOMER].status = ACTIVE
    for readings in (0, 1):
        assert (record.state, system.card_api.readings) == (ChallengeState.SIGNED, 0)
        system.let_pass(timedelta(minutes=1))
        taken = await replica.forward.take_over(record.id)
        assert taken is not None
        assert system.card_api.readings == readings
        record = taken
    assert (record.state, record.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
    assert (record.attempts, record.submission) == (3, None)


@pytest.mark.parametrize("failures", [[], *([error] for error in UNREACHABLE)], ids=["not proven", *"123"])
async def test_the_third_5xx_leaves_it_open_where_nothing_is_proven(
    system: FakeSystem, replica: Replica, failures: list[SignerError]
) -> None:
    """Given a customer who is not proven, or of whom nothing can be learnt, then the same is sent again."""
    system.card_api.failures.extend(failures)
    record = await third_answer(system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN, 503))
    assert (record.code, system.card_api.readings) == (RecordCode.CARD_API_UNAVAILABLE, 1)
    again = await replica.forward.attempt(await check_pause(system, replica, record, 4 * FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


@pytest.mark.parametrize("verdict", [DeliveryVerdict.NOT_PROCESSED, DeliveryVerdict.CREDENTIALS_REFUSED])
async def test_an_api_that_did_not_take_it_up_is_not_asked(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """Given answers that say that nothing was processed, then there is nothing to ask: the same is sent again."""
    record = await third_answer(system, replica, DeliveryResult(verdict, 429))
    assert (record.state, system.card_api.readings) == (ChallengeState.SIGNED, 0)


async def test_silence_is_followed_by_no_question(system: FakeSystem, replica: Replica) -> None:
    """Given deliveries without an answer, then there is nobody to ask: the same is sent again."""
    await third_answer(system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN))
    assert system.card_api.readings == 0


async def test_a_refused_signature_of_the_present_challenge_is_rejected(system: FakeSystem, replica: Replica) -> None:
    """Given a 400, when the API's challenge is still this one, then it did not like the signature."""
    record = await answered(system, replica, DeliveryResult(DeliveryVerdict.REFUSED, 400))
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)
    assert record.superseded_by is None


async def test_a_refused_signature_of_a_replaced_challenge_is_superseded(system: FakeSystem, replica: Replica) -> None:
    """Given a 400, when the API has another challenge, then the record names that one."""
    held = await system.signed(replica, system.challenge())
    new = system.issued(nonce="anothernonce1")
    record = await replica.forward.attempt(held)
    assert (record.state, record.code) == (ChallengeState.SUPERSEDED, RecordCode.REPLACED_UPSTREAM)
    assert record.superseded_by == system.id_of(new)


async def test_a_refusal_after_an_answer_that_was_lost_is_not_believed(system: FakeSystem, replica: Replica) -> None:
    """Given a delivery that was accepted unheard, when its repetition is refused, then the customer's status counts."""
    system.card_api.lost_answers = 1
    held = await system.signed(replica, system.issued())
    record = await replica.forward.attempt(held)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


async def test_a_repetition_that_is_refused_and_proves_nothing_is_rejected(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a second POST that is refused, when the customer is not proven, then it is as with the first."""
    record = await answered(system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN))
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)


@pytest.mark.parametrize("text", ["", "no base64", to_base64(b"-----BEGIN PUBLIC KEY-----")])
async def test_a_replacement_that_cannot_be_read_has_no_name(system: FakeSystem, replica: Replica, text: str) -> None:
    """Given a 400, when the API has something that is no challenge, then the record is superseded by nothing known."""
    held = await system.signed(replica, system.challenge())
    system.card_api.issue(CUSTOMER, text)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    record = await replica.forward.attempt(held)
    assert (record.state, record.superseded_by) == (ChallengeState.SUPERSEDED, None)


@HOWEVER_UNREACHABLE
async def test_a_refusal_stays_open_where_the_present_challenge_cannot_be_fetched(
    system: FakeSystem, replica: Replica, failure: SignerError
) -> None:
    """Given a 400, when the question fails, then nothing is concluded from it."""
    system.card_api.failures.append(failure)
    record = await answered(system, replica, DeliveryResult(DeliveryVerdict.REFUSED, 400))
    assert record.code == RecordCode.CARD_API_UNAVAILABLE
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


async def test_a_refusal_stays_open_where_the_customer_is_gone(system: FakeSystem, replica: Replica) -> None:
    """Given a 400, when the customer is not known any more, then the next POST will say so."""
    held = await system.signed(replica, system.challenge(), customer=OTHER_CUSTOMER)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    record = await replica.forward.attempt(held)
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)
