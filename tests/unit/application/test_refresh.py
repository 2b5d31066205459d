"""A challenge that is past its time, or replaced upstream: exchanged where the request allows it, never silently."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, RefusedByPolicy, Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.unit.application.use_cases import CUSTOMER, DEADLINE, NOW, PATIENCE, FakeSystem, Replica


async def test_a_replaced_challenge_is_exchanged_and_the_old_record_says_so(
    system: FakeSystem, replica: Replica
) -> None:
    """The caller's challenge was replaced upstream: with ``refresh`` the answer is the new one's."""
    old, new = system.challenge(nonce="old0old0"), system.issued(nonce="new0new0")
    record = await replica.sign(system.request(old, refresh=True), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)
    assert system.record(old).state is ChallengeState.SUPERSEDED
    assert system.record(old).superseded_by == record.id


async def test_a_given_challenge_is_not_exchanged_unasked(system: FakeSystem, replica: Replica) -> None:
    """Without ``refresh`` the answer is the end of the challenge that was given."""
    old, new = system.challenge(nonce="old0old0"), system.issued(nonce="new0new0")
    record = await replica.sign(system.request(old), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(old), ChallengeState.SUPERSEDED)
    assert system.id_of(new) not in system.shelf.rows


async def test_an_expired_challenge_is_exchanged(system: FakeSystem, replica: Replica) -> None:
    """Nothing was spent on it; the fresh one is judged in full and signed."""
    old = system.challenge(nonce="old0old0")
    system.let_pass(DEADLINE - NOW + timedelta(seconds=1))
    new = system.issued(nonce="new0new0", issued_at="2026-11-22T13:00:00Z")
    record = await replica.sign(system.request(old, refresh=True), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)
    assert system.id_of(old) not in system.shelf.rows
    with pytest.raises(RefusedByPolicy) as refused:
        await replica.sign(system.request(old), within=PATIENCE)
    assert refused.value.code is ErrorCode.CHALLENGE_EXPIRED


async def test_the_exchange_is_judged_in_full(system: FakeSystem, replica: Replica) -> None:
    """The card API's present challenge is for another domain: refused, with nothing signed."""
    old = system.challenge(nonce="old0old0")
    system.let_pass(DEADLINE - NOW + timedelta(seconds=1))
    system.issued(nonce="new0new0", issued_at="2026-11-22T13:00:00Z", domain="evil.example")
    with pytest.raises(RefusedByPolicy) as refused:
        await replica.sign(system.request(old, refresh=True), within=PATIENCE)
    assert refused.value.code is ErrorCode.DOMAIN_NOT_ALLOWED
    assert system.key.signed == 0


async def test_an_exchange_is_made_twice_at_most(system: FakeSystem, replica: Replica) -> None:
    """The card API refuses whatever it gets: three challenges are tried, and the third one's end is the answer."""
    system.issued(nonce="nonce000")
    seen: list[str] = []
    original = system.card_api.submit

    async def replacing(*args: object, **named: object) -> DeliveryResult:
        delivery = await original(*args, **named)  # type: ignore[arg-type]
        seen.append("POST")
        system.issued(nonce=f"nonce00{len(seen)}")
        return delivery

    system.card_api.submit = replacing  # type: ignore[method-assign]
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.REFUSED, 400)] * 9)
    record = await replica.sign(system.request(refresh=True), within=PATIENCE)
    assert record.state is ChallengeState.SUPERSEDED
    assert len(seen) == 3


async def test_a_record_that_ends_superseded_while_it_is_carried_on_is_exchanged(system: FakeSystem) -> None:
    """No challenge is named, an earlier one is under way, and turns out to be replaced: the new one is signed."""
    dead, replica = system.replica(), system.replica()
    old = system.issued(nonce="old0old0")
    await system.signed(dead, old)
    system.let_pass(timedelta(minutes=1))
    new = system.issued(nonce="new0new0")
    record = await replica.sign(system.request(refresh=True), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)
    assert system.record(old).superseded_by == record.id


@pytest.mark.parametrize("refresh", [True, False])
async def test_a_record_that_is_proven_while_it_is_carried_on_is_the_answer(system: FakeSystem, refresh: bool) -> None:
    """No challenge is named, an earlier one is under way and ends well: nothing is fetched."""
    challenge = system.issued()
    await system.signed(system.replica(), challenge)
    system.let_pass(timedelta(minutes=1))
    record = await system.replica().sign(system.request(refresh=refresh), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(challenge), ChallengeState.VERIFIED)
    assert system.card_api.readings == 0


async def test_a_record_that_ends_superseded_while_it_is_carried_on_is_not_exchanged_unasked(
    system: FakeSystem,
) -> None:
    """Without ``refresh`` the answer is the end of what was under way."""
    old = system.issued(nonce="old0old0")
    await system.signed(system.replica(), old)
    system.let_pass(timedelta(minutes=1))
    new = system.issued(nonce="new0new0")
    record = await system.replica().sign(system.request(), within=PATIENCE)
    assert (record.id, record.state) == (system.id_of(old), ChallengeState.SUPERSEDED)
    assert system.id_of(new) not in system.shelf.rows


async def test_an_expired_challenge_that_has_no_successor_stays_refused(system: FakeSystem, replica: Replica) -> None:
    """The card API still has the old one: refused as expired, after it was asked twice."""
    old = system.issued()
    system.let_pass(DEADLINE - NOW + timedelta(seconds=1))
    with pytest.raises(RefusedByPolicy) as refused:
        await replica.sign(system.request(old, refresh=True), within=PATIENCE)
    assert refused.value.code is ErrorCode.CHALLENGE_EXPIRED
    assert system.card_api.readings == 2


async def test_more_work_than_a_replica_takes_is_refused(system: FakeSystem) -> None:
    """Memory stays flat: a request beyond the limit is told to come back; one for the same work still joins it."""
    sign = system.replica(max_concurrent_requests=1).sign
    system.key.open.clear()
    challenge = system.issued()
    first = system.request(challenge)
    with pytest.raises(Unavailable) as waiting:
        await sign(first, within=timedelta(milliseconds=1))
    assert waiting.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    with pytest.raises(Unavailable) as refused:
        await sign(system.request(system.challenge(nonce="other000")), within=PATIENCE)
    assert refused.value.code is ErrorCode.OVERLOADED
    system.key.open.set()
    assert (await sign(first, within=PATIENCE)).customer_id == CUSTOMER
