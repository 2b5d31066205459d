"""Tests: each move is logged once, with its fields. ``FakeSystem.close`` checks that no event contains a secret."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, DeliveryResult, DeliveryVerdict, EventName
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from tests.unit.application.fake_system import CUSTOMER, LEASE, LONG_TIMEOUT, OTHER_CUSTOMER, FakeSystem, Replica

N = EventName
VERIFIED = [N.CLAIMED, N.SIGNED, N.DELIVERED, N.SETTLED]


def fields_of(event: AuditEvent) -> dict[str, Any]:
    """Return the fields of an event that are set and shown, without its duration."""
    shown = {name: value for name, value in event.fields.items() if value is not None and name != "duration_ms"}
    return {"name": event.name, **shown}


async def test_verified_challenge_logs_claimed_signed_delivered_settled(system: FakeSystem, replica: Replica) -> None:
    """Each event identifies the challenge and has the fields of its step."""
    challenge = system.issue_challenge()
    began = time.perf_counter()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    total_ms = (time.perf_counter() - began) * 1000
    identity = {"challenge_id": system.id_of(challenge), "customer_id": CUSTOMER, "owner": str(system.owner)}
    [(_, _, idempotency_key)] = system.card_api.submitted
    assert [fields_of(event) for event in system.audit.events] == [
        {**identity, "name": N.CLAIMED, "state": "claimed"},
        {**identity, "name": N.SIGNED, "state": "forwarding", "key_uri": system.key.uri},
        {
            **identity,
            "name": N.DELIVERED,
            "state": "forwarding",
            "attempt": 1,
            "code": "accepted",
            "status": 204,
            "idempotency_key": idempotency_key,
        },
        {**identity, "name": N.SETTLED, "state": "verified", "attempt": 1},
    ]
    timed = {event.name: event.fields["duration_ms"] for event in system.audit.events if "duration_ms" in event.fields}
    assert timed.keys() == {N.SIGNED, N.DELIVERED}
    assert all(0 <= duration_ms <= total_ms for duration_ms in timed.values())


async def test_shared_work_is_logged_once(system: FakeSystem, replica: Replica) -> None:
    """Repeated requests, now or later, log nothing more."""
    request = system.request(system.issue_challenge())
    await asyncio.gather(*(replica.sign(request, within=LONG_TIMEOUT) for _ in range(50)))
    await system.add_replica().sign(request, within=LONG_TIMEOUT)
    system.advance(timedelta(hours=2))
    await replica.sign(request, within=LONG_TIMEOUT)
    assert system.audit.names == VERIFIED


async def test_later_delivery_is_logged_as_takeover(system: FakeSystem, replica: Replica) -> None:
    """The first request asked for no delivery."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge, forward=False), within=LONG_TIMEOUT)
    assert [(event.name, event.fields["state"]) for event in system.audit.events] == [
        (N.CLAIMED, "claimed"),
        (N.SIGNED, "signed"),
    ]
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert system.audit.names[2:] == [N.TAKEN_OVER, N.DELIVERED, N.SETTLED]


async def test_each_attempt_logs_delivered_and_each_pause_logs_deferred(
    system: FakeSystem, no_retry_replica: Replica
) -> None:
    """With the attempt's number and status, and the pause's reason and length."""
    challenge = system.issue_challenge()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 429, timedelta(seconds=20)))
    await no_retry_replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.advance(timedelta(seconds=20))
    await no_retry_replica.run_round()
    assert system.audit.names == [N.CLAIMED, N.SIGNED, N.DELIVERED, N.DEFERRED, N.TAKEN_OVER, N.DELIVERED, N.SETTLED]
    deferred = system.audit.events_named(N.DEFERRED)[0]
    assert (deferred.fields["state"], deferred.fields["code"], deferred.fields["duration_ms"]) == (
        "signed",
        "card_api_busy",
        20_000,
    )
    first, second = system.audit.events_named(N.DELIVERED)
    assert (first.fields["attempt"], first.fields["status"], first.fields["code"]) == (1, 429, "not_processed")
    assert (second.fields["attempt"], second.fields["status"], second.fields["code"]) == (2, 204, "accepted")
    assert first.fields["idempotency_key"] == second.fields["idempotency_key"]


@pytest.mark.parametrize("verdict", [DeliveryVerdict.ALREADY_SIGNED, DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED])
async def test_settled_event_has_state_and_code_of_record(
    system: FakeSystem, replica: Replica, verdict: DeliveryVerdict
) -> None:
    """It is the last event."""
    system.card_api.verdicts.append(DeliveryResult(verdict))
    record = await replica.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    last = system.audit.events[-1]
    assert (last.name, last.fields["state"], last.fields["code"]) == (N.SETTLED, record.state, record.code)
    assert last.fields["code"] is not None


async def test_expiry_is_logged_once_as_settled(system: FakeSystem, replica: Replica) -> None:
    """The code is the record's."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge, forward=False), within=LONG_TIMEOUT)
    system.audit.events.clear()
    system.advance(timedelta(hours=1))
    await replica.run_round()
    await replica.run_round()
    [event] = system.audit.events
    assert (event.name, event.fields["state"], event.fields["code"]) == (N.SETTLED, "expired", "not_forwarded")


async def error_code(
    replica: Replica, system: FakeSystem, challenge: str | None, customer: str = CUSTOMER
) -> ErrorCode:
    """Make a request that fails; return the code of its error."""
    with pytest.raises(SignerError) as error:
        await replica.sign(system.request(challenge, customer=customer), within=LONG_TIMEOUT)
    return error.value.code


async def test_refused_event_has_code_customer_and_owner(system: FakeSystem, replica: Replica) -> None:
    """It has nothing of the challenge."""
    code = await error_code(
        replica, system, system.make_challenge(domain="evil.example.org", uri="https://evil.example.org")
    )
    assert [fields_of(event) for event in system.audit.events] == [
        {"name": N.REFUSED, "customer_id": CUSTOMER, "owner": str(system.owner), "code": code},
    ]


async def test_conflict_is_logged_as_conflicted(system: FakeSystem, replica: Replica) -> None:
    """With the customer of the request, not of the record."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.audit.events.clear()
    codes = [
        await error_code(replica, system, system.make_challenge(issued_at="2026-11-22T12:00:01Z")),
        await error_code(replica, system, challenge, OTHER_CUSTOMER),
    ]
    assert codes == [ErrorCode.NONCE_REUSED, ErrorCode.CHALLENGE_BOUND_ELSEWHERE]
    assert [(event.name, event.fields["code"], event.fields["customer_id"]) for event in system.audit.events] == [
        (N.CONFLICTED, codes[0], CUSTOMER),
        (N.CONFLICTED, codes[1], OTHER_CUSTOMER),
    ]


async def test_key_backend_failure_logs_released_and_refused(system: FakeSystem, replica: Replica) -> None:
    """The release has the key's URI, the cause and the reason."""
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The key backend is down.", cause="throttled")
    challenge = system.issue_challenge()
    code = await error_code(replica, system, challenge)
    assert system.audit.names == [N.CLAIMED, N.RELEASED, N.REFUSED]
    released = system.audit.events[1]
    assert (released.fields["challenge_id"], released.fields["state"]) == (system.id_of(challenge), "released")
    assert (released.fields["code"], released.fields["key_uri"]) == (code, system.key.uri)
    assert (released.fields["cause"], released.fields["reason"]) == ("throttled", "The key backend is down.")


async def test_lost_lease_is_logged_once_without_signed_event(system: FakeSystem, replica: Replica) -> None:
    """The other replica logs every step."""
    challenge, other_replica = system.issue_challenge(), system.add_replica()

    async def sign_on_other_replica() -> None:
        system.advance(LEASE)
        await other_replica.sign(system.request(challenge), within=LONG_TIMEOUT)

    replica.store.before["record_signature"] = sign_on_other_replica
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert system.audit.names == [N.CLAIMED, *VERIFIED, N.LEASE_LOST]
    assert system.audit.events[-1].fields["challenge_id"] == system.id_of(challenge)


async def test_events_have_the_origin_of_the_request_that_started_the_work(
    system: FakeSystem, replica: Replica
) -> None:
    """Also after its caller has disconnected. Recovery has no origin."""
    origin = Origin("a-request-id", "wallet")
    challenge, other = system.issue_challenge(), system.make_challenge(nonce="anothernonce1")
    system.card_api.open.clear()

    async def send_request() -> None:
        ORIGIN.set(origin)
        await replica.sign(system.request(challenge), within=LONG_TIMEOUT)

    caller = asyncio.create_task(send_request())
    await system.wait_until(lambda: bool(system.card_api.submitted))
    caller.cancel()
    await asyncio.wait({caller})
    system.card_api.open.set()
    await system.wait_until(lambda: system.audit.names == VERIFIED)
    assert system.audit.origins == [origin] * 4
    await system.sign_and_record(system.add_replica(), other)
    system.advance(LEASE)
    await replica.run_round()
    assert set(system.audit.origins[4:]) == {None}


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (DeliveryResult(DeliveryVerdict.NOT_PROCESSED, retry_after=timedelta(seconds=4)), "card_api_busy"),
        (DeliveryResult(DeliveryVerdict.CREDENTIALS_REFUSED), "credentials_refused"),
    ],
    ids=["no_connection_or_breaker_open", "no_token"],
)
async def test_attempt_that_sent_nothing_logs_only_why_it_is_deferred(
    system: FakeSystem, no_retry_replica: Replica, result: DeliveryResult, code: str
) -> None:
    """``challenge.delivered`` means that a request was sent."""
    system.card_api.verdicts.append(result)
    await no_retry_replica.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    assert system.audit.names == [N.CLAIMED, N.SIGNED, N.DEFERRED]
    assert system.audit.events[-1].fields["code"] == code


@pytest.mark.parametrize(
    "result",
    [
        DeliveryResult(DeliveryVerdict.UNKNOWN),
        DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 429),
        DeliveryResult(DeliveryVerdict.CREDENTIALS_REFUSED, 403),
    ],
    ids=["no_response", "429", "403"],
)
async def test_attempt_that_was_sent_logs_delivered(
    system: FakeSystem, no_retry_replica: Replica, result: DeliveryResult
) -> None:
    """Also if the card API did not process it, or did not respond."""
    system.card_api.verdicts.append(result)
    await no_retry_replica.sign(system.request(system.issue_challenge()), within=LONG_TIMEOUT)
    assert system.audit.names == [N.CLAIMED, N.SIGNED, N.DELIVERED, N.DEFERRED]
