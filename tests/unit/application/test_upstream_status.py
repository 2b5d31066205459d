from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from tests.unit.application.fake_system import CUSTOMER, FakeSystem, Replica

V = DeliveryVerdict
PROVEN = ("screening", "verifying", "active", "inactive", "Active", "VERIFYING")
NOT_PROVEN = ("initiating", "Initiating", "rejected", "failed", "unknown", "closed", "")


ALREADY_SIGNED = (ChallengeState.ALREADY_SIGNED, RecordCode.CONFIRMED_BY_CUSTOMER_STATUS)
RETRIED = (ChallengeState.SIGNED, RecordCode.CARD_API_BUSY)


@pytest.mark.parametrize(
    ("status", "outcome"), [*((word, ALREADY_SIGNED) for word in PROVEN), *((word, RETRIED) for word in NOT_PROVEN)]
)
async def test_ambiguous_conflict_is_settled_only_if_status_is_proven(
    system: FakeSystem, replica: Replica, status: str, outcome: tuple[ChallengeState, RecordCode]
) -> None:
    """After a 409 without a body, only a customer that got past its challenge ends the record."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.customers[CUSTOMER].status = status
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(leased)
    assert (record.state, record.code) == outcome


@pytest.mark.parametrize("status", NOT_PROVEN)
async def test_repeated_5xx_is_not_settled_as_verified_if_status_proves_nothing(
    system: FakeSystem, replica: Replica, status: str
) -> None:
    """500 three times, and a customer that was rejected meanwhile: its wallet was not proven by that."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN, 500)] * 3)
    leased = await system.sign_and_record(replica, challenge)
    system.card_api.customers[CUSTOMER].status = status
    await replica.forward.attempt(leased)
    for _ in range(2):
        system.advance(timedelta(minutes=1))
        await replica.run_round()
    record = system.record_of(challenge)
    assert record.attempts == 3
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.CARD_API_UNAVAILABLE)


@pytest.mark.parametrize(
    ("word", "stored"),
    [
        *((word, word) for word in ("initiating", "screening", "verifying", "active", "inactive", "rejected")),
        ("ACTIVE", "active"),
        *((word, "unknown") for word in ("pending", "closed", "failed", "Unknown", "", "x" * 10_000)),
    ],
)
async def test_record_and_event_have_the_status_that_was_read(
    system: FakeSystem, replica: Replica, word: str, stored: str
) -> None:
    """A known word in lower case; states of accounts, and any other word, are unknown."""
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.customers[CUSTOMER].status = word
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.CONFLICT_AMBIGUOUS, 409))
    record = await replica.forward.attempt(leased)
    assert (record.upstream_status, system.audit.events[-1].fields["upstream_status"]) == (stored, stored)


async def test_record_keeps_the_status_until_it_is_read_again(system: FakeSystem, replica: Replica) -> None:
    """An attempt that does not read it, a failed read and a replica that is stopped leave it as it was."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.extend(
        DeliveryResult(verdict, 409)
        for verdict in (V.CONFLICT_AMBIGUOUS, V.NOT_PROCESSED, V.CONFLICT_AMBIGUOUS, V.NOT_PROCESSED)
    )
    await replica.forward.attempt(await system.sign_and_record(replica, challenge))
    assert system.record_of(challenge).upstream_status is CustomerStatus.INITIATING
    system.advance(timedelta(minutes=1))
    await replica.run_round()
    system.advance(timedelta(minutes=1))
    system.card_api.failures.append(Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "The card API is down."))
    await replica.run_round()
    system.advance(timedelta(minutes=1))
    system.card_api.open.clear()
    [delivering] = await replica.recovery.start_round()
    await system.wait_until(lambda: len(system.card_api.submitted) == 4)
    delivering.cancel()
    await asyncio.wait([delivering])
    record = system.record_of(challenge)
    assert (record.code, record.upstream_status) == (RecordCode.HANDED_BACK, CustomerStatus.INITIATING)


async def test_record_has_no_status_if_none_was_read(system: FakeSystem, replica: Replica) -> None:
    """A 204 says enough; a customer that is not found has no status."""
    delivered = await replica.forward.attempt(await system.sign_and_record(replica, system.issue_challenge()))
    system.card_api.customers.clear()
    challenge = system.make_challenge(nonce="anothernonce1")
    unknown = await replica.forward.attempt(await system.sign_and_record(replica, challenge))
    assert (delivered.state, delivered.upstream_status) == (ChallengeState.VERIFIED, None)
    assert (unknown.code, unknown.upstream_status) == (RecordCode.CUSTOMER_UNKNOWN_UPSTREAM, None)
