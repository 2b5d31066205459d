"""Tests: a 400 ends a challenge only if the card API refuses it again and again for minutes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.adapters.card_api.responses import delivery_result
from signer.adapters.card_api.results import UpstreamResponse
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.application.settle_or_defer import REFUSAL_CONFIRMED_AFTER
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, Submission
from tests.support.fakes.card_api import FakeCardApi
from tests.support.fakes.clock import FakeClock
from tests.unit.application.fake_system import CUSTOMER, DEADLINE, LONG_TIMEOUT, ZERO_TIMEOUT, FakeSystem, Replica

REFUSALS = {
    "plain_text": delivery_result(UpstreamResponse(400, b"invalid required signature")),
    "json": delivery_result(UpstreamResponse(400, b'{"code":"invalid_request","message":"Bad Request"}')),
}
REFUSED = REFUSALS["json"]
PAUSE = timedelta(seconds=30)
"""The longest pause between two attempts."""


class RefusingCardApi(FakeCardApi):
    """The card API as one replica sees it, for example because its clock is wrong: every POST gets this result."""

    def __init__(self, card_api: FakeCardApi, refusal: DeliveryResult) -> None:
        super().__init__()
        self.customers = card_api.customers
        self.submitted = card_api.submitted
        self._refusal = refusal

    async def submit(self, customer_id: str, submission: Submission, *, timeout: timedelta) -> DeliveryResult:
        """Refuse the request before its body is looked at."""
        self.submitted.append((customer_id, submission.body, submission.idempotency_key))
        return self._refusal


async def attempt_again(system: FakeSystem, replica: Replica, record: ChallengeRecord) -> ChallengeRecord:
    """Attempt a delivery again after its pause."""
    system.advance(PAUSE)
    again = await replica.forward.take_over(record.id)
    assert again is not None
    return again


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_one_replica_whose_requests_are_refused_ends_no_challenge(
    system: FakeSystem, refusal: DeliveryResult
) -> None:
    """Of three replicas one is skewed. It makes every attempt for almost three minutes, then another one delivers."""
    skewed = system.add_replica(card_api=RefusingCardApi(system.card_api, refusal), work_timeout=ZERO_TIMEOUT)
    others = [system.add_replica(), system.add_replica()]
    challenge = system.issue_challenge()
    record = await skewed.sign(system.request(challenge), within=LONG_TIMEOUT)
    for _ in range(int(REFUSAL_CONFIRMED_AFTER / PAUSE) - 1):
        assert record.state is ChallengeState.SIGNED
        record = await attempt_again(system, skewed, record)
    system.advance(PAUSE)
    assert sum([await other.run_round() for other in others]) == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED
    assert len(set(system.card_api.submitted)) == 1


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_replica_whose_requests_are_refused_ends_no_challenge_after_an_outage(
    system: FakeSystem, refusal: DeliveryResult
) -> None:
    """All attempts of ten minutes failed otherwise: the first refusal is not the last of many."""
    skewed = system.add_replica(card_api=RefusingCardApi(system.card_api, refusal))
    other = system.add_replica(work_timeout=ZERO_TIMEOUT)
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.NOT_PROCESSED)] * 20)
    record = await other.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    while system.card_api.verdicts:
        record = await attempt_again(system, other, record)
    assert (await attempt_again(system, skewed, record)).state is ChallengeState.SIGNED
    assert (await attempt_again(system, other, record)).state is ChallengeState.VERIFIED


async def test_signature_refused_for_three_minutes_is_rejected(system: FakeSystem, replica: Replica) -> None:
    """Not before. Every attempt sends the same body under the same Idempotency-Key."""
    system.card_api.verdicts.extend([REFUSED] * 100)
    leased = await system.sign_and_record(replica, system.issue_challenge())
    record = await replica.forward.attempt(leased)
    began = system.clock.now()
    while system.clock.now() - began < REFUSAL_CONFIRMED_AFTER:
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.REFUSAL_UNCONFIRMED)
        record = await attempt_again(system, replica, record)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)
    assert (record.superseded_by, record.attempts) == (None, 7)
    assert len(system.card_api.submitted) == 7
    assert len(set(system.card_api.submitted)) == 1


async def test_other_result_between_refusals_begins_the_three_minutes_again(
    system: FakeSystem, replica: Replica
) -> None:
    """Only refusals in a row confirm each other."""
    system.card_api.verdicts.extend([REFUSED, DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 429), REFUSED, REFUSED])
    record = await replica.forward.attempt(await system.sign_and_record(replica, system.issue_challenge()))
    for wait in (PAUSE, REFUSAL_CONFIRMED_AFTER, REFUSAL_CONFIRMED_AFTER - PAUSE - timedelta(seconds=1)):
        system.advance(wait)
        record = await attempt_again(system, replica, record)
        assert not record.state.is_final
    assert (await attempt_again(system, replica, record)).state is ChallengeState.VERIFIED


async def test_refusal_counts_although_the_current_challenge_cannot_be_read(
    system: FakeSystem, replica: Replica
) -> None:
    """It is read again after the next refusal."""
    system.card_api.verdicts.extend([REFUSED] * 3)
    record = await replica.forward.attempt(await system.sign_and_record(replica, system.issue_challenge()))
    began = record.refused_since
    system.card_api.failures.extend([Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "The card API is down.")] * 2)
    record = await attempt_again(system, replica, record)
    assert (record.code, record.refused_since) == (RecordCode.CARD_API_UNAVAILABLE, began)
    system.advance(REFUSAL_CONFIRMED_AFTER)
    record = await attempt_again(system, replica, record)
    assert (record.state, record.code) == (ChallengeState.REJECTED, RecordCode.REFUSED_BY_CARD_API)


async def test_challenge_that_expires_while_it_is_refused_ends_as_not_delivered(
    system: FakeSystem, replica: Replica
) -> None:
    """The customer's status says that nothing was proven."""
    system.card_api.verdicts.extend([REFUSED] * 2)
    record = await replica.forward.attempt(await system.sign_and_record(replica, system.issue_challenge()))
    record = await attempt_again(system, replica, record)
    system.advance(DEADLINE - system.clock.now() + timedelta(minutes=1))
    record = await attempt_again(system, replica, record)
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)


async def test_refused_challenge_is_superseded_at_once_if_card_api_replaced_it(
    system: FakeSystem, replica: Replica
) -> None:
    """A new challenge shows that the card API has judged the old one."""
    system.card_api.verdicts.extend([REFUSED] * 2)
    record = await replica.forward.attempt(await system.sign_and_record(replica, system.issue_challenge()))
    system.card_api.issue(CUSTOMER, system.make_challenge(nonce="anothernonce1"))
    record = await attempt_again(system, replica, record)
    assert (record.state, record.code) == (ChallengeState.SUPERSEDED, RecordCode.REPLACED_UPSTREAM)


async def test_skewed_clock_of_a_replica_does_not_shorten_the_three_minutes(system: FakeSystem) -> None:
    """They are measured by the store's clock."""
    ahead = system.add_replica(clock=FakeClock(system.clock.now() + timedelta(minutes=10)))
    system.card_api.verdicts.extend([REFUSED] * 2)
    record = await ahead.forward.attempt(await system.sign_and_record(ahead, system.issue_challenge()))
    record = await attempt_again(system, ahead, record)
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.REFUSAL_UNCONFIRMED)
