"""Tests: an expired or replaced challenge is exchanged for the current one only with ``refresh``."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ChallengeRefused, ErrorCode, RefusedByPolicy, Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.unit.application.fake_system import CUSTOMER, DEADLINE, LONG_TIMEOUT, NOW, FakeSystem, Replica


async def test_replaced_challenge_is_exchanged_with_refresh(system: FakeSystem, replica: Replica) -> None:
    """The old record names its successor."""
    old, new = system.make_challenge(nonce="old0old0"), system.issue_challenge(nonce="new0new0")
    record = await replica.sign(system.request(old, refresh=True), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)
    assert system.record_of(old).state is ChallengeState.SUPERSEDED
    assert system.record_of(old).superseded_by == record.id


async def test_replaced_challenge_is_returned_as_superseded_without_refresh(
    system: FakeSystem, replica: Replica
) -> None:
    """The new challenge is not signed."""
    old, new = system.make_challenge(nonce="old0old0"), system.issue_challenge(nonce="new0new0")
    record = await replica.sign(system.request(old), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(old), ChallengeState.SUPERSEDED)
    assert system.id_of(new) not in system.shelf.rows


async def test_expired_challenge_is_exchanged_with_refresh(system: FakeSystem, replica: Replica) -> None:
    """Without ``refresh`` it is refused."""
    old = system.make_challenge(nonce="old0old0")
    system.advance(DEADLINE - NOW + timedelta(seconds=1))
    new = system.issue_challenge(nonce="new0new0", issued_at="2026-11-22T13:00:00Z")
    record = await replica.sign(system.request(old, refresh=True), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)
    assert system.id_of(old) not in system.shelf.rows
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(system.request(old), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_EXPIRED


async def test_new_challenge_is_checked_by_the_whole_policy(system: FakeSystem, replica: Replica) -> None:
    """It is for another domain: nothing is signed."""
    old = system.make_challenge(nonce="old0old0")
    system.advance(DEADLINE - NOW + timedelta(seconds=1))
    system.issue_challenge(nonce="new0new0", issued_at="2026-11-22T13:00:00Z", domain="evil.example")
    with pytest.raises(ChallengeRefused) as error:
        await replica.sign(system.request(old, refresh=True), within=LONG_TIMEOUT)
    assert error.value.reason is ErrorCode.DOMAIN_NOT_ALLOWED
    assert system.key.signed == 0


async def test_challenge_is_exchanged_at_most_twice(system: FakeSystem, replica: Replica) -> None:
    """The card API replaces each challenge; the third record is returned."""
    system.issue_challenge(nonce="nonce000")
    posts: list[str] = []
    original = system.card_api.submit

    async def submit_and_replace(*args: object, **kwargs: object) -> DeliveryResult:
        delivery = await original(*args, **kwargs)  # type: ignore[arg-type]
        posts.append("POST")
        system.issue_challenge(nonce=f"nonce00{len(posts)}")
        return delivery

    system.card_api.submit = submit_and_replace  # type: ignore[method-assign]
    system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.REFUSED, 400)] * 9)
    record = await replica.sign(system.request(refresh=True), within=LONG_TIMEOUT)
    assert record.state is ChallengeState.SUPERSEDED
    assert len(posts) == 3


async def test_resumed_challenge_that_is_superseded_is_exchanged_with_refresh(system: FakeSystem) -> None:
    """The request has no challenge, and an earlier one is unsettled."""
    dead_replica, replica = system.add_replica(), system.add_replica()
    old = system.issue_challenge(nonce="old0old0")
    await system.sign_and_record(dead_replica, old)
    system.advance(timedelta(minutes=1))
    new = system.issue_challenge(nonce="new0new0")
    record = await replica.sign(system.request(refresh=True), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(new), ChallengeState.VERIFIED)
    assert system.record_of(old).superseded_by == record.id


@pytest.mark.parametrize("refresh", [True, False])
async def test_resumed_challenge_that_is_verified_is_returned(system: FakeSystem, refresh: bool) -> None:
    """The request has no challenge, and an earlier one is unsettled: nothing is fetched."""
    challenge = system.issue_challenge()
    await system.sign_and_record(system.add_replica(), challenge)
    system.advance(timedelta(minutes=1))
    record = await system.add_replica().sign(system.request(refresh=refresh), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(challenge), ChallengeState.VERIFIED)
    assert system.card_api.read_count == 0


async def test_resumed_challenge_that_is_superseded_is_returned_without_refresh(
    system: FakeSystem,
) -> None:
    """The new challenge is not signed."""
    old = system.issue_challenge(nonce="old0old0")
    await system.sign_and_record(system.add_replica(), old)
    system.advance(timedelta(minutes=1))
    new = system.issue_challenge(nonce="new0new0")
    record = await system.add_replica().sign(system.request(), within=LONG_TIMEOUT)
    assert (record.id, record.state) == (system.id_of(old), ChallengeState.SUPERSEDED)
    assert system.id_of(new) not in system.shelf.rows


async def test_card_api_is_to_blame_if_it_has_no_newer_challenge(system: FakeSystem, replica: Replica) -> None:
    """It is read twice."""
    old = system.issue_challenge()
    system.advance(DEADLINE - NOW + timedelta(seconds=1))
    with pytest.raises(ChallengeRefused) as error:
        await replica.sign(system.request(old, refresh=True), within=LONG_TIMEOUT)
    assert error.value.reason is ErrorCode.CHALLENGE_EXPIRED
    assert system.card_api.read_count == 2


async def test_request_beyond_capacity_is_overloaded(system: FakeSystem) -> None:
    """A request for running work still joins it."""
    sign = system.add_replica(max_concurrent_requests=1).sign
    system.key.open.clear()
    challenge = system.issue_challenge()
    first = system.request(challenge)
    with pytest.raises(Unavailable) as timed_out:
        await sign(first, within=timedelta(milliseconds=1))
    assert timed_out.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    with pytest.raises(Unavailable) as error:
        await sign(system.request(system.make_challenge(nonce="other000")), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.OVERLOADED
    system.key.open.set()
    assert (await sign(first, within=LONG_TIMEOUT)).customer_id == CUSTOMER
