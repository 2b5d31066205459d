"""Tests: what follows each result of a delivery."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict, LeasedRecord
from signer.domain.errors import BadUpstream, ErrorCode, SignerError, Unavailable, UpstreamTimeout
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.support.fakes.card_api import ACTIVE
from tests.support.messages import to_base64
from tests.unit.application.fake_system import CUSTOMER, OTHER_CUSTOMER, FakeSystem, Replica

FIRST_PAUSE = timedelta(milliseconds=250)
INSTANT = timedelta(microseconds=1)
LONG_AFTER = timedelta(minutes=2)
UNREACHABLE: list[SignerError] = [
    Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "The card API is down."),
    UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "The card API timed out."),
    BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "The response cannot be parsed."),
]
EACH_FETCH_ERROR = pytest.mark.parametrize("failure", UNREACHABLE, ids=lambda error: error.code)
FINAL_STATES = {
    DeliveryVerdict.ACCEPTED: (ChallengeState.VERIFIED, None),
    DeliveryVerdict.ALREADY_SIGNED: (ChallengeState.ALREADY_SIGNED, RecordCode.ALREADY_SIGNED_UPSTREAM),
    DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED: (ChallengeState.REJECTED, RecordCode.IDEMPOTENCY_KEY_REFUSED),
}
RETRY_CODES = {
    DeliveryVerdict.CREDENTIALS_REFUSED: RecordCode.CREDENTIALS_REFUSED,
    DeliveryVerdict.NOT_PROCESSED: RecordCode.CARD_API_BUSY,
    DeliveryVerdict.UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
    DeliveryVerdict.CONFLICT_AMBIGUOUS: RecordCode.CARD_API_BUSY,
    DeliveryVerdict.CUSTOMER_UNKNOWN: RecordCode.CARD_API_UNAVAILABLE,
}


async def attempt_with(system: FakeSystem, replica: Replica, delivery: DeliveryResult) -> ChallengeRecord:
    """Attempt a delivery that gets this result."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.verdicts.append(delivery)
    return await replica.forward.attempt(leased)


async def check_pause(system: FakeSystem, replica: Replica, record: ChallengeRecord, pause: timedelta) -> LeasedRecord:
    """Check that a record is not due before ``pause`` has passed; then lease it again."""
    assert (record.state, record.leased_until) == (ChallengeState.SIGNED, None)
    system.advance(pause - INSTANT)
    assert await replica.store.due(1) == []
    assert await replica.store.begin_forwarding(record.id) is None
    system.advance(INSTANT)
    assert await replica.store.due(1) == [record.id]
    leased = await replica.store.begin_forwarding(record.id)
    assert leased is not None
    return leased


@pytest.mark.parametrize("verdict", DeliveryVerdict)
async def test_every_verdict_makes_record_final_or_due_again(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """A final record has no submission any more."""
    record = await attempt_with(system, replica, DeliveryResult(verdict))
    if record.state.is_final:
        assert record.submission is None
    else:
        assert (record.state, record.leased_until) == (ChallengeState.SIGNED, None)
        assert record.submission is not None
    system.advance(timedelta(minutes=1))
    assert await replica.store.due(1) == ([] if record.state.is_final else [record.id])


@pytest.mark.parametrize(("verdict", "final"), FINAL_STATES.items())
async def test_clear_verdict_settles_record(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, final: tuple[ChallengeState, RecordCode | None]
) -> None:
    """Nothing is read from the card API."""
    record = await attempt_with(system, replica, DeliveryResult(verdict))
    assert (record.state, record.code) == final
    assert record.signature is not None
    assert system.card_api.read_count == 0


@pytest.mark.parametrize(("verdict", "code"), RETRY_CODES.items())
async def test_open_verdict_repeats_same_body_and_key_after_pause(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, code: RecordCode
) -> None:
    """The second attempt is accepted."""
    record = await attempt_with(system, replica, DeliveryResult(verdict, 503))
    assert record.code == code
    leased = await check_pause(system, replica, record, FIRST_PAUSE)
    again = await replica.forward.attempt(leased)
    assert (again.state, again.code, again.attempts) == (ChallengeState.VERIFIED, None, 2)
    assert system.card_api.submitted[0] == system.card_api.submitted[1]


@pytest.mark.parametrize(
    "verdict", [DeliveryVerdict.NOT_PROCESSED, DeliveryVerdict.UNKNOWN, DeliveryVerdict.CONFLICT_AMBIGUOUS]
)
@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(timedelta(seconds=20), timedelta(seconds=20)), (timedelta(milliseconds=1), FIRST_PAUSE)],
    ids=["longer_than_backoff", "shorter_than_backoff"],
)
async def test_rfc9110_10_2_3_retry_after_is_a_lower_bound(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict, retry_after: timedelta, pause: timedelta
) -> None:
    """The backoff is one, too."""
    record = await attempt_with(system, replica, DeliveryResult(verdict, 429, retry_after=retry_after))
    await check_pause(system, replica, record, pause)


async def test_rfc9110_10_2_3_retry_after_ends_at_the_deadline(system: FakeSystem, replica: Replica) -> None:
    """Then the outcome is read instead."""
    record = await attempt_with(
        system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN, 503, retry_after=timedelta(days=1))
    )
    leased = await check_pause(system, replica, record, record.expires_at - system.clock.now())
    assert leased.deliverable is False


async def test_delivery_whose_response_was_lost_is_repeated_and_verified(system: FakeSystem, replica: Replica) -> None:
    """The card API returns its first response again."""
    system.card_api.lost_responses = 1
    leased = await system.sign_and_record(replica, system.issue_challenge())
    record = await replica.forward.attempt(leased)
    assert system.card_api.customers[CUSTOMER].status == ACTIVE
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


async def test_ambiguous_conflict_settles_as_already_signed_if_customer_is_proven(
    system: FakeSystem, replica: Replica
) -> None:
    """A 409 with an unclear meaning."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.customers[CUSTOMER].status = ACTIVE
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == (ChallengeState.ALREADY_SIGNED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@EACH_FETCH_ERROR
async def test_ambiguous_conflict_is_deferred_if_status_cannot_be_read(
    system: FakeSystem, replica: Replica, failure: SignerError
) -> None:
    """The same body is sent again."""
    system.card_api.failures.append(failure)
    record = await attempt_with(system, replica, DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    assert record.code == RecordCode.CARD_API_BUSY
    await check_pause(system, replica, record, FIRST_PAUSE)


async def test_ambiguous_conflict_is_deferred_if_customer_is_unknown(system: FakeSystem, replica: Replica) -> None:
    """The next POST gets a 404."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.customers.clear()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(leased)
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)


async def test_404_is_rejected_if_customer_is_unknown(system: FakeSystem, replica: Replica) -> None:
    """It was sent once."""
    leased = await system.sign_and_record(replica, system.make_challenge())
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)
    assert (len(system.card_api.submitted), system.card_api.read_count) == (1, 1)


@pytest.mark.parametrize("status", ["initiating", ACTIVE])
async def test_404_is_deferred_if_customer_exists(system: FakeSystem, replica: Replica, status: str) -> None:
    """A gateway may have sent it. The next attempt proves the customer."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.customers[CUSTOMER].status = status
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404))
    record = await replica.forward.attempt(leased)
    assert record.code == RecordCode.CARD_API_UNAVAILABLE
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state.is_proof


async def test_404_is_deferred_if_no_token_can_be_fetched(system: FakeSystem, replica: Replica) -> None:
    """A gateway in front of the card API returns 404 for all requests; later the delivery succeeds."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.gateway_returns_404 = True
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_UNAVAILABLE)
    system.card_api.gateway_returns_404 = False
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


async def test_404_after_deadline_is_deferred_if_no_token_can_be_fetched(system: FakeSystem, replica: Replica) -> None:
    """The delivery had been accepted, which shows when the card API is back."""
    system.card_api.lost_responses = 1
    leased = await system.sign_and_record(replica, system.issue_challenge())
    record = await replica.forward.attempt(leased)
    system.card_api.gateway_returns_404 = True
    system.advance(record.expires_at - system.clock.now() + LONG_AFTER)
    lost = await replica.forward.take_over(record.id)
    assert lost is not None
    assert (lost.state, lost.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    system.card_api.gateway_returns_404 = False
    system.advance(timedelta(minutes=1))
    found = await replica.forward.take_over(record.id)
    assert found is not None
    assert (found.state, found.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@EACH_FETCH_ERROR
async def test_404_is_deferred_if_status_cannot_be_read(
    system: FakeSystem, replica: Replica, failure: SignerError
) -> None:
    """It may come from a gateway."""
    system.card_api.failures.append(failure)
    record = await attempt_with(system, replica, DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404))
    assert record.code is RecordCode.CARD_API_UNAVAILABLE
    await check_pause(system, replica, record, FIRST_PAUSE)


async def attempt_three_times(system: FakeSystem, replica: Replica, delivery: DeliveryResult) -> ChallengeRecord:
    """Attempt three deliveries of one signature that get this result."""
    record = await attempt_with(system, replica, delivery)
    for _ in range(2):
        system.card_api.verdicts.append(delivery)
        system.advance(timedelta(minutes=1))
        taken = await replica.forward.take_over(record.id)
        assert taken is not None
        record = taken
    assert record.attempts == 3
    return record


async def test_third_5xx_reads_status_and_settles_as_verified_if_proven(system: FakeSystem, replica: Replica) -> None:
    """The card API keeps its 500 under the Idempotency-Key."""
    replayed = DeliveryResult(DeliveryVerdict.UNKNOWN, 500)
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.verdicts.extend([replayed] * 3)
    record = await replica.forward.attempt(leased)
    system.card_api.customers[CUSTOMER].status = ACTIVE
    for read_count in (0, 1):
        assert (record.state, system.card_api.read_count) == (ChallengeState.SIGNED, 0)
        system.advance(timedelta(minutes=1))
        taken = await replica.forward.take_over(record.id)
        assert taken is not None
        assert system.card_api.read_count == read_count
        record = taken
    assert (record.state, record.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
    assert (record.attempts, record.submission) == (3, None)


@pytest.mark.parametrize(
    "failures", [[], *([error] for error in UNREACHABLE)], ids=["not_proven", *(error.code for error in UNREACHABLE)]
)
async def test_third_5xx_is_deferred_if_customer_is_not_proven(
    system: FakeSystem, replica: Replica, failures: list[SignerError]
) -> None:
    """Or if the status cannot be read. The same body is sent again."""
    system.card_api.failures.extend(failures)
    record = await attempt_three_times(system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN, 503))
    assert (record.code, system.card_api.read_count) == (RecordCode.CARD_API_UNAVAILABLE, 1)
    again = await replica.forward.attempt(await check_pause(system, replica, record, 4 * FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


@pytest.mark.parametrize("verdict", [DeliveryVerdict.NOT_PROCESSED, DeliveryVerdict.CREDENTIALS_REFUSED])
async def test_status_is_not_read_if_nothing_was_processed(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """The verdict says so; the same body is sent again."""
    record = await attempt_three_times(system, replica, DeliveryResult(verdict, 429))
    assert (record.state, system.card_api.read_count) == (ChallengeState.SIGNED, 0)


async def test_status_is_not_read_without_a_response(system: FakeSystem, replica: Replica) -> None:
    """The card API does not respond."""
    await attempt_three_times(system, replica, DeliveryResult(DeliveryVerdict.UNKNOWN))
    assert system.card_api.read_count == 0


async def test_400_is_superseded_if_card_api_has_another_challenge(system: FakeSystem, replica: Replica) -> None:
    """The record names that one."""
    leased = await system.sign_and_record(replica, system.make_challenge())
    new = system.issue_challenge(nonce="anothernonce1")
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == (ChallengeState.SUPERSEDED, RecordCode.REPLACED_UPSTREAM)
    assert record.superseded_by == system.id_of(new)


async def test_400_for_repeated_delivery_settles_as_verified_if_customer_is_proven(
    system: FakeSystem, replica: Replica
) -> None:
    """The first delivery was accepted and its response was lost."""
    system.card_api.lost_responses = 1
    leased = await system.sign_and_record(replica, system.issue_challenge())
    record = await replica.forward.attempt(leased)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.VERIFIED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)


@pytest.mark.parametrize("text", ["", "no base64", to_base64(b"-----BEGIN PUBLIC KEY-----")])
async def test_400_is_superseded_without_successor_if_new_challenge_is_unreadable(
    system: FakeSystem, replica: Replica, text: str
) -> None:
    """The card API's challenge cannot be decoded."""
    leased = await system.sign_and_record(replica, system.make_challenge())
    system.card_api.issue(CUSTOMER, text)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    record = await replica.forward.attempt(leased)
    assert (record.state, record.superseded_by) == (ChallengeState.SUPERSEDED, None)


@EACH_FETCH_ERROR
async def test_400_is_deferred_if_current_challenge_cannot_be_read(
    system: FakeSystem, replica: Replica, failure: SignerError
) -> None:
    """The same body is sent again."""
    system.card_api.failures.append(failure)
    record = await attempt_with(system, replica, DeliveryResult(DeliveryVerdict.REFUSED, 400))
    assert record.code == RecordCode.CARD_API_UNAVAILABLE
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED


async def test_400_is_deferred_if_customer_is_unknown(system: FakeSystem, replica: Replica) -> None:
    """The next POST gets a 404."""
    leased = await system.sign_and_record(replica, system.make_challenge(), customer=OTHER_CUSTOMER)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.REFUSED, 400))
    record = await replica.forward.attempt(leased)
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert (again.state, again.code) == (ChallengeState.REJECTED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)


async def test_404_for_a_challenge_that_is_not_30_seconds_old_is_deferred(system: FakeSystem, replica: Replica) -> None:
    """A card API may show a customer that was just created a little later."""
    new = (system.clock.now() - timedelta(seconds=29)).strftime("%Y-%m-%dT%H:%M:%SZ")
    leased = await system.sign_and_record(replica, system.issue_challenge(issued_at=new))
    known = system.card_api.customers.pop(CUSTOMER)
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CUSTOMER_UNKNOWN, 404))
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CUSTOMER_UNKNOWN_UPSTREAM)
    system.card_api.customers[CUSTOMER] = known
    again = await replica.forward.attempt(await check_pause(system, replica, record, FIRST_PAUSE))
    assert again.state is ChallengeState.VERIFIED
