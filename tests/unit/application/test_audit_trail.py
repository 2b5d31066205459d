"""Every move is written down once, by its name and with what belongs to it; ``House`` looks for secrets in it."""

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
from tests.unit.application.use_cases import CUSTOMER, LEASE, OTHER_CUSTOMER, PATIENCE, House, Replica

N = EventName
ALL_THE_WAY = [N.CLAIMED, N.SIGNED, N.DELIVERED, N.SETTLED]


def shown(event: AuditEvent) -> dict[str, Any]:
    """Give what an event shows, but for how long it took."""
    named = {one.name: getattr(event, one.name) for one in fields(event)}
    return {name: value for name, value in named.items() if value is not None and name != "duration_ms"}


async def test_a_challenge_that_goes_all_the_way(house: House, replica: Replica) -> None:
    """ClaimResult, signed, delivered, settled: each with whose it is, where it stands, and what this step adds."""
    challenge = house.issued()
    began = time.perf_counter()
    await replica.sign(house.request(challenge), within=PATIENCE)
    took = (time.perf_counter() - began) * 1000
    whose = {"challenge_id": house.id_of(challenge), "customer_id": CUSTOMER, "owner": str(house.owner)}
    [(_, _, idempotency_key)] = house.card_api.submitted
    assert [shown(event) for event in house.audit.events] == [
        {**whose, "name": N.CLAIMED, "state": "claimed"},
        {**whose, "name": N.SIGNED, "state": "forwarding", "key_uri": house.key.uri},
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
    timed = {event.name for event in house.audit.events if event.duration_ms is not None}
    assert timed == {N.SIGNED, N.DELIVERED}
    assert all(0 <= event.duration_ms <= took for event in house.audit.events if event.duration_ms is not None)


async def test_fifty_callers_leave_one_trail(house: House, replica: Replica) -> None:
    """Each move is written once, whoever waits for it, now or later."""
    request = house.request(house.issued())
    await asyncio.gather(*(replica.sign(request, within=PATIENCE) for _ in range(50)))
    await house.replica().sign(request, within=PATIENCE)
    house.let_pass(timedelta(hours=2))
    await replica.sign(request, within=PATIENCE)
    assert house.audit.names == ALL_THE_WAY


async def test_what_is_kept_and_sent_later(house: House, replica: Replica) -> None:
    """A later delivery is a takeover of what an earlier request left."""
    challenge = house.issued()
    await replica.sign(house.request(challenge, forward=False), within=PATIENCE)
    assert [(event.name, event.state) for event in house.audit.events] == [(N.CLAIMED, "claimed"), (N.SIGNED, "signed")]
    await replica.sign(house.request(challenge), within=PATIENCE)
    assert house.audit.names[2:] == [N.TAKEN_OVER, N.DELIVERED, N.SETTLED]


async def test_a_busy_card_api(house: House, hasty: Replica) -> None:
    """Each attempt is one delivery with its own number and status; the pause says why and for how long."""
    challenge = house.issued()
    house.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 429, timedelta(seconds=20)))
    await hasty.sign(house.request(challenge), within=PATIENCE)
    house.let_pass(timedelta(seconds=20))
    await hasty.tick()
    assert house.audit.names == [N.CLAIMED, N.SIGNED, N.DELIVERED, N.DEFERRED, N.TAKEN_OVER, N.DELIVERED, N.SETTLED]
    deferred = house.audit.of(N.DEFERRED)[0]
    assert (deferred.state, deferred.code, deferred.duration_ms) == ("signed", "card_api_busy", 20_000)
    first, second = house.audit.of(N.DELIVERED)
    assert (first.attempt, first.status, first.code) == (1, 429, "not_processed")
    assert (second.attempt, second.status, second.code) == (2, 204, "accepted")
    assert first.idempotency_key == second.idempotency_key


@pytest.mark.parametrize("verdict", [DeliveryVerdict.ALREADY_SIGNED, DeliveryVerdict.REFUSED])
async def test_an_end_says_why(house: House, replica: Replica, verdict: DeliveryVerdict) -> None:
    """The last event has the record's state and code."""
    house.card_api.verdicts.append(DeliveryResult(verdict))
    record = await replica.sign(house.request(house.issued()), within=PATIENCE)
    last = house.audit.events[-1]
    assert (last.name, last.state, last.code) == (N.SETTLED, record.state, record.code)
    assert last.code is not None


async def test_a_deadline_without_an_attempt(house: House, replica: Replica) -> None:
    """An expiry is a settling, and the record's code says of what."""
    challenge = house.issued()
    await replica.sign(house.request(challenge, forward=False), within=PATIENCE)
    house.audit.events.clear()
    house.let_pass(timedelta(hours=1))
    await replica.tick()
    await replica.tick()
    [event] = house.audit.events
    assert (event.name, event.state, event.code) == (N.SETTLED, "expired", "not_forwarded")


async def heard(replica: Replica, house: House, challenge: str | None, customer: str = CUSTOMER) -> ErrorCode:
    """Ask for what is refused or fails; gives the code that the caller hears."""
    with pytest.raises(SignerError) as refusal:
        await replica.sign(house.request(challenge, customer=customer), within=PATIENCE)
    return refusal.value.code


async def test_a_refusal_names_its_code_and_whose_it_is(house: House, replica: Replica) -> None:
    """What was refused is known by customer and owner; the challenge itself is nobody's business."""
    code = await heard(replica, house, house.challenge(domain="evil.example.org", uri="https://evil.example.org"))
    assert [shown(event) for event in house.audit.events] == [
        {"name": N.REFUSED, "customer_id": CUSTOMER, "owner": str(house.owner), "code": code},
    ]


async def test_a_conflict_is_no_ordinary_refusal(house: House, replica: Replica) -> None:
    """Somebody errs, or tries: it has a name of its own, and says whose request it was."""
    challenge = house.issued()
    await replica.sign(house.request(challenge), within=PATIENCE)
    house.audit.events.clear()
    codes = [
        await heard(replica, house, house.challenge(issued_at="2026-11-22T12:00:01Z")),
        await heard(replica, house, challenge, OTHER_CUSTOMER),
    ]
    assert codes == [ErrorCode.NONCE_REUSED, ErrorCode.CHALLENGE_BOUND_ELSEWHERE]
    assert [(event.name, event.code, event.customer_id) for event in house.audit.events] == [
        (N.CONFLICTED, codes[0], CUSTOMER),
        (N.CONFLICTED, codes[1], OTHER_CUSTOMER),
    ]


async def test_a_key_backend_that_fails(house: House, replica: Replica) -> None:
    """The release names the backend and the reason; the request's failure is written, too."""
    house.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "It is down.")
    challenge = house.issued()
    code = await heard(replica, house, challenge)
    assert house.audit.names == [N.CLAIMED, N.RELEASED, N.REFUSED]
    released = house.audit.events[1]
    assert (released.challenge_id, released.state) == (house.id_of(challenge), "released")
    assert (released.code, released.key_uri) == (code, house.key.uri)


async def test_a_claim_that_was_lost_while_signing(house: House, replica: Replica) -> None:
    """The loser says so once; the winner's trail is whole, and no second signing shows."""
    challenge, elsewhere = house.issued(), house.replica()

    async def sign_elsewhere() -> None:
        house.let_pass(LEASE)
        await elsewhere.sign(house.request(challenge), within=PATIENCE)

    replica.store.before["record_signature"] = sign_elsewhere
    await replica.sign(house.request(challenge), within=PATIENCE)
    assert house.audit.names == [N.CLAIMED, *ALL_THE_WAY, N.LEASE_LOST]
    assert house.audit.events[-1].challenge_id == house.id_of(challenge)


async def test_work_is_written_down_for_the_request_that_started_it(house: House, replica: Replica) -> None:
    """Also what happens when its caller is gone; what recovery does is on nobody's behalf."""
    origin = Origin("a-request-id", "wallet")
    challenge, other = house.issued(), house.challenge(nonce="anothernonce1")
    house.card_api.open.clear()

    async def ask() -> None:
        ORIGIN.set(origin)
        await replica.sign(house.request(challenge), within=PATIENCE)

    caller = asyncio.create_task(ask())
    await house.until(lambda: bool(house.card_api.submitted))
    caller.cancel()
    await asyncio.wait({caller})
    house.card_api.open.set()
    await house.until(lambda: house.audit.names == ALL_THE_WAY)
    assert house.audit.origins == [origin] * 4
    await house.signed(house.replica(), other)
    house.let_pass(LEASE)
    await replica.tick()
    assert set(house.audit.origins[4:]) == {None}
