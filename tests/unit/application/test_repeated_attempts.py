"""Attempts that change nothing are logged as repeated: an outage writes few lines about each challenge."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application import settle_or_defer
from signer.application.ports import DeliveryResult, DeliveryVerdict, EventName
from tests.unit.application.fake_system import LONG_TIMEOUT, FakeSystem, Replica

N = EventName


def new_attempts(system: FakeSystem) -> list[EventName]:
    """Return the names of the events about attempts that are not repeated, and remove all events."""
    attempts = {N.TAKEN_OVER, N.DELIVERED, N.DEFERRED}
    names = [event.name for event in system.audit.events if event.name in attempts and not event.is_repeated]
    system.audit.events.clear()
    return names


async def test_attempts_that_change_nothing_are_repeated_until_one_is_accepted(
    system: FakeSystem, no_retry_replica: Replica
) -> None:
    """Whatever the response is. Each is an event, so that it is counted."""
    verdicts = DeliveryVerdict.UNKNOWN, DeliveryVerdict.NOT_PROCESSED, DeliveryVerdict.CREDENTIALS_REFUSED
    system.card_api.verdicts.extend(DeliveryResult(verdict, 503) for verdict in verdicts)
    await no_retry_replica.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    assert new_attempts(system) == [N.DELIVERED, N.DEFERRED]
    for _ in range(2):
        system.advance(timedelta(seconds=30))
        assert await no_retry_replica.run_round() == 1
        assert system.audit.names == [N.TAKEN_OVER, N.DELIVERED, N.DEFERRED]
        assert new_attempts(system) == []
    system.advance(timedelta(seconds=30))
    assert await no_retry_replica.run_round() == 1
    assert system.audit.names == [N.TAKEN_OVER, N.DELIVERED, N.SETTLED]
    assert new_attempts(system) == [N.DELIVERED]


async def test_another_replica_logs_its_first_attempt_as_new(system: FakeSystem, no_retry_replica: Replica) -> None:
    """It may continue what a dead replica left."""
    system.card_api.verdicts.extend(DeliveryResult(DeliveryVerdict.UNKNOWN) for _ in range(2))
    await no_retry_replica.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    new_attempts(system)
    system.advance(timedelta(seconds=30))
    assert await system.add_replica().run_round() == 1
    assert new_attempts(system) == [N.TAKEN_OVER, N.DELIVERED, N.DEFERRED]


async def test_handed_back_challenge_is_never_logged_as_repeated(system: FakeSystem, no_retry_replica: Replica) -> None:
    """The line says what a replica that stops has left."""
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.UNKNOWN))
    challenge = system.issue_challenge()
    await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    new_attempts(system)
    system.advance(timedelta(seconds=30))
    system.card_api.open.clear()
    attempt = asyncio.create_task(no_retry_replica.forward.take_over(system.id_of(challenge)))
    await system.wait_until(lambda: len(system.card_api.submitted) == 2)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    assert system.record_of(challenge).code == "handed_back"
    assert new_attempts(system) == [N.DEFERRED]


async def test_replica_remembers_a_limited_number_of_deferred_challenges(
    system: FakeSystem, no_retry_replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there are more, it logs an attempt as new once more."""
    monkeypatch.setattr(settle_or_defer, "_MAX_REMEMBERED", 1)
    system.card_api.verdicts.extend(DeliveryResult(DeliveryVerdict.UNKNOWN) for _ in range(3))
    for nonce in ("firstnonce1", "secondnonce2"):
        await no_retry_replica.sign(system.request(system.issue_challenge(nonce=nonce)), within=LONG_TIMEOUT)
    new_attempts(system)
    system.advance(timedelta(seconds=30))
    await no_retry_replica.forward.take_over(system.id_of(system.challenges[0]))
    assert new_attempts(system) == [N.TAKEN_OVER, N.DELIVERED, N.DEFERRED]


async def test_attempts_for_several_challenges_are_each_repeated(system: FakeSystem, no_retry_replica: Replica) -> None:
    """An outage writes few lines about each of them."""
    system.card_api.verdicts.extend(DeliveryResult(DeliveryVerdict.UNKNOWN) for _ in range(4))
    for nonce in ("firstnonce1", "secondnonce2"):
        await no_retry_replica.sign(system.request(system.issue_challenge(nonce=nonce)), within=LONG_TIMEOUT)
    new_attempts(system)
    system.advance(timedelta(seconds=30))
    assert await no_retry_replica.run_round() == 2
    assert new_attempts(system) == []
