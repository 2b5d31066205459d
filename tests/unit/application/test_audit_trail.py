"""Every move is written down once, by its name and with what belongs to it; ``FakeSystem`` looks for secrets in it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, DeliveryResult, DeliveryVerdict, EventName
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from tests.unit.application.use_cases import CUSTOMER, LEASE, OTHER_CUSTOMER, PATIENCE, FakeSystem, Replica

N = EventName
ALL_THE_WAY = [N.CLAIMED, N.SIGNED, N.DELIVERED, N.SETTLED]


def shown(event: AuditEvent) -> dict[str, Any]:
    """Give what an event shows, but for how long it took."""
    named = {one.name: getattr(event, one.name) for one in fields(event)}
    return {name: value for name, value in named.items() if value is not None and name != "duration_ms"}


async def test_a_challenge_that_goes_all_the_way(system: FakeSystem, replica: Replica) -> None:
    """ClaimResult, signed, delivered, settled: each with whose it is, where it stands, and what this step adds."""
    challenge = system.issued()
    began = time.perf_counter()
    await replica.sign(system.request(challenge), within=PATIENCE)
    took = (time.perf_counter() - began) * 1000
    whose = {"challenge_id": system.id_of(challenge), "customer_id": CUSTOMER, "owner": str(system.owner)}
    [(_, _, idempotency_key)] = system.card_api.submitted
    assert [shown(event) for event in system.audit.events] == [
        {**whose, "name": N.CLAIMED, "state": "claimed"},
        {**whose, "name": N.SIGNED, "state": "forwarding", "key_uri": system.key.uri},
        {
            **whose,
            "name": N.DELIVERED,
            "state": "forwarding",
            "attempt": 1,
            "code": "accepted",
            "status": 204,
            "idempotency_key": idempotency_key,
        },
        {**whose, "name": N.SETTLED, "state": "verified", "attempt": 1},
    ]
    timed = {event.name for event in system.audit.events if event.duration_ms is not None}
    assert timed == {N.SIGNED, N.DELIVERED}
    assert all(0 <= event.duration_ms <= took for event in system.audit.events if event.duration_ms is not None)


async def test_fifty_callers_leave_one_trail(system: FakeSystem, replica: Replica) -> None:
    """Each move is written once, whoever waits for it, now or later."""
    request = system.request(system.issued())
    await asyncio.gather(*(replica.sign(request, within=PATIENCE) for _ in range(50)))
    await system.replica().sign(request, within=PATIENCE)
    system.let_pass(timedelta(hours=2))
    await replica.sign(request, within=PATIENCE)
    assert system.audit.names == ALL_THE_WAY


async def test_what_is_kept_and_sent_later(system: FakeSystem, replica: Replica) -> None:
    """A later delivery is a takeover of what an earlier request left."""
    challenge = system.issued()
    await replica.sign(system.request(challenge, forward=False), within=PATIENCE)
    assert [(event.name, event.state) for event in system.audit.events] == [
        (N.CLAIMED, "claimed"),
        (N.SIGNED, "signed"),
    ]
    await replica.sign(system.request(challenge), within=PATIENCE)
    assert system.audit.names[2:] == [N.TAKEN_OVER, N.DELIVERED, N.SETTLED]


async def test_a_busy_card_api(system: FakeSystem, hasty: Replica) -> None:
    """Each attempt is one delivery with its own number and status; the pause says why and for how long."""
    challenge = system.issued()
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 429, timedelta(seconds=20)))
    await hasty.sign(system.request(challenge), within=PATIENCE)
    system.let_pass(timedelta(seconds=20))
    await hasty.tick()
    assert system.audit.names == [N.CLAIMED, N.SIGNED, N.DELIVERED, N.DEFERRED, N.TAKEN_OVER, N.DELIVERED, N.SETTLED]
    deferred = system.audit.of(N.DEFERRED)[0]
    assert (deferred.state, deferred.code, deferred.duration_ms) == ("signed", "card_api_busy", 20_000)
    first, second = system.audit.of(N.DELIVERED)
    assert (first.attempt, first.status, first.code) == (1, 429, "not_processed")
    assert (second.attempt, second.status, second.code) == (2, 204, "accepted")
    assert first.idempotency_key == second.idempotency_key


@pytest.mark.parametrize("verdict", [DeliveryVerdict.ALREADY_SIGNED, DeliveryVerdict.REFUSED])
async def test_an_end_says_why(system: FakeSystem, replica: Replica, verdict: DeliveryVerdict) -> None:
    """The last event has the record's state and code."""
    system.card_api.verdicts.append(DeliveryResult(verdict))
    record = await replica.sign(system.request(system.issued()), within=PATIENCE)
    last = system.audit.events[-1]
    assert (last.name, last.state, last.code) == (N.SETTLED, record.state, record.code)
    assert last.code is not None


async def test_a_deadline_without_an_attempt(system: FakeSystem, replica: Replica) -> None:
    """An expiry is a settling, and the record's code says of what."""
    challenge = system.issued()
    await replica.sign(system.request(challenge, forward=False), within=PATIENCE)
    system.audit.events.clear()
    system.let_pass(timedelta(hours=1))
    await replica.tick()
    await replica.tick()
    [event] = system.audit.events
    assert (event.name, event.state, event.code) == (N.SETTLED, "expired", "not_forwarded")


async def heard(replica: Replica, system: FakeSystem, challenge: str | None, customer: str = CUSTOMER) -> ErrorCode:
    """Ask for what is refused or fails; gives the code that the caller hears."""
    with pytest.raises(SignerError) as refusal:
        await replica.sign(system.request(challenge, customer=customer), within=PATIENCE)
    return refusal.value.code


async def test_a_refusal_names_its_code_and_whose_it_is(system: FakeSystem, replica: Replica) -> None:
    """What was refused is known by customer and owner; the challenge itself is nobody's business."""
    code = await heard(replica, system, system.challenge(domain="evil.example.org", uri="https://evil.example.org"))
    assert [shown(event) for event in system.audit.events] == [
        {"name": N.REFUSED, "customer_id": CUSTOMER, "owner": str(system.owner), "code": code},
    ]


async def test_a_conflict_is_no_ordinary_refusal(system: FakeSystem, replica: Replica) -> None:
    """Somebody errs, or tries: it has a name of its own, and says whose request it was."""
    challenge = system.issued()
    await replica.sign(system.request(challenge), within=PATIENCE)
    system.audit.events.clear()
    codes = [
        await heard(replica, system, system.challenge(issued_at="2026-11-22T12:00:01Z")),
        await heard(replica, system, challenge, OTHER_CUSTOMER),
    ]
    assert codes == [ErrorCode.NONCE_REUSED, ErrorCode.CHALLENGE_BOUND_ELSEWHERE]
    assert [(event.name, event.code, event.customer_id) for event in system.audit.events] == [
        (N.CONFLICTED, codes[0], CUSTOMER),
        (N.CONFLICTED, codes[1], OTHER_CUSTOMER),
    ]


async def test_a_key_backend_that_fails(system: FakeSystem, replica: Replica) -> None:
    """The release names the backend and the reason; the request's failure is written, too."""
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "It is down.")
    challenge = system.issued()
    code = await heard(replica, system, challenge)
    assert system.audit.names == [N.CLAIMED, N.RELEASED, N.REFUSED]
    released = system.audit.events[1]
    assert (released.challenge_id, released.state) == (system.id_of(challenge), "released")
    assert (released.code, released.key_uri) == (code, system.key.uri)


async def test_a_claim_that_was_lost_while_signing(system: FakeSystem, replica: Replica) -> None:
    """The loser says so once; the winner's trail is whole, and no second signing shows."""
    challenge, elsewhere = system.issued(), system.replica()

    async def sign_elsewhere() -> None:
        system.let_pass(LEASE)
        await elsewhere.sign(system.request(challenge), within=PATIENCE)

    replica.store.before["record_signature"] = sign_elsewhere
    await replica.sign(system.request(challenge), within=PATIENCE)
    assert system.audit.names == [N.CLAIMED, *ALL_THE_WAY, N.LEASE_LOST]
    assert system.audit.events[-1].challenge_id == system.id_of(challenge)


async def test_work_is_written_down_for_the_request_that_started_it(system: FakeSystem, replica: Replica) -> None:
    """Also what happens when its caller is gone; what recovery does is on nobody's behalf."""
    origin = Origin("a-request-id", "wallet")
    challenge, other = system.issued(), system.challenge(nonce="anothernonce1")
    system.card_api.open.clear()

    async def ask() -> None:
        ORIGIN.set(origin)
        await replica.sign(system.request(challenge), within=PATIENCE)

    caller = asyncio.create_task(ask())
    await system.until(lambda: bool(system.card_api.submitted))
    caller.cancel()
    await asyncio.wait({caller})
    system.card_api.open.set()
    await system.until(lambda: system.audit.names == ALL_THE_WAY)
    assert system.audit.origins == [origin] * 4
    await system.signed(system.replica(), other)
    system.let_pass(LEASE)
    await replica.tick()
    assert set(system.audit.origins[4:]) == {None}
