"""Delivering a signature: every documented status, and every way in which the simulator can go wrong."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest

from signer.application.ports import Delivery, DeliveryVerdict
from signer.domain.errors import MalformedRequest
from signer.domain.record import Submission
from signer.simulator.faults import FaultKind
from signer.simulator.ledger import Fate
from tests.integration.card_api.calling import SOON, Calling
from tests.integration.card_api.conftest import StartCalling

V = DeliveryVerdict


async def test_a_signature_is_verified(calling: Calling) -> None:
    """204: the simulator has verified our request, with http-message-signatures, and the owner's signature."""
    customer_id, submission = calling.customer()
    assert await calling.deliver(customer_id, submission) == Delivery(V.ACCEPTED, 204)
    (entry,) = calling.simulator.state.ledger.entries(customer_id)
    assert entry.verified
    assert entry.idempotency_key == submission.idempotency_key


async def test_fifty_deliveries_at_once(calling: Calling) -> None:
    """They share one token and the pool of connections."""
    deliveries = [calling.customer() for _ in range(50)]
    outcomes = await asyncio.gather(*(calling.deliver(*delivery) for delivery in deliveries))
    assert set(outcomes) == {Delivery(V.ACCEPTED, 204)}
    assert calling.calls("token") == 1


async def test_the_same_delivery_again_gets_the_same_answer(calling: Calling) -> None:
    """Under its own key it is replayed, and counts once."""
    customer_id, submission = calling.customer()
    for _ in range(2):
        assert await calling.deliver(customer_id, submission) == Delivery(V.ACCEPTED, 204)
    assert [entry.replayed for entry in calling.simulator.state.ledger.entries(customer_id)] == [False, True]


async def test_409_already_signed(calling: Calling) -> None:
    """Another request had it signed: the first meaning of 409."""
    customer_id, submission = calling.customer()
    await calling.deliver(customer_id, submission)
    again = await calling.deliver(customer_id, submission, key=str(uuid.uuid4()))
    assert again == Delivery(V.ALREADY_SIGNED, 409)


async def test_409_in_flight(calling: Calling) -> None:
    """Two deliveries under one key at once: the second meaning of 409."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.CONFLICT, "sign", times=1)
    assert await calling.deliver(customer_id, submission) == Delivery(V.NOT_PROCESSED, 409)
    assert (await calling.deliver(customer_id, submission)).verdict is V.ACCEPTED


async def test_409_without_a_word(start: StartCalling) -> None:
    """A 409 that does not say which leaves the question to the application, in both cases."""
    calling = await start({"bare_conflicts": True})
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.CONFLICT, "sign", times=1)
    assert await calling.deliver(customer_id, submission) == Delivery(V.CONFLICT_AMBIGUOUS, 409)
    await calling.deliver(customer_id, submission)
    again = await calling.deliver(customer_id, submission, key=str(uuid.uuid4()))
    assert again == Delivery(V.CONFLICT_AMBIGUOUS, 409)


async def test_422_key_reused(calling: Calling) -> None:
    """The key of another body."""
    customer_id, submission = calling.customer()
    await calling.deliver(customer_id, submission)
    other_id, other = calling.customer()
    reused = await calling.deliver(other_id, other, key=submission.idempotency_key)
    assert reused == Delivery(V.IDEMPOTENCY_KEY_REFUSED, 422)


async def test_400_refused(calling: Calling) -> None:
    """A challenge that is not the customer's."""
    customer_id, _ = calling.customer()
    _, of_another = calling.customer()
    assert await calling.deliver(customer_id, of_another) == Delivery(V.REFUSED, 400)


async def test_404_customer_unknown(calling: Calling) -> None:
    """No such customer."""
    _, submission = calling.customer()
    assert await calling.deliver(str(uuid.uuid4()), submission) == Delivery(V.CUSTOMER_UNKNOWN, 404)


async def test_403_forbidden(calling: Calling) -> None:
    """403 is no matter of a new token."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "sign", status=403)
    assert await calling.deliver(customer_id, submission) == Delivery(V.CREDENTIALS_REFUSED, 403)
    assert (calling.calls("sign"), calling.calls("token")) == (1, 1)


async def test_429_is_one_attempt(calling: Calling) -> None:
    """What the API asks for is passed on; the next attempt is the application's."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "sign", status=429, retry_after=7)
    delivery = await calling.deliver(customer_id, submission)
    assert delivery == Delivery(V.NOT_PROCESSED, 429, timedelta(seconds=7))
    assert calling.calls("sign") == 1


@pytest.mark.parametrize("replay_server_errors", [False, True])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_5xx_after_the_commit_leaves_the_outcome_open(
    start: StartCalling, status: int, replay_server_errors: bool
) -> None:
    """It is one attempt, and the repetition under the same key changes nothing more."""
    calling = await start({"replay_server_errors": replay_server_errors})
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS_AFTER_COMMIT, "sign", status=status, retry_after=3)
    assert await calling.deliver(customer_id, submission) == Delivery(V.UNKNOWN, status, timedelta(seconds=3))
    assert calling.calls("sign") == 1
    calling.calm()
    again = await calling.deliver(customer_id, submission)
    assert again.verdict is (V.UNKNOWN if replay_server_errors else V.ALREADY_SIGNED)


@pytest.mark.parametrize("kind", [FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_a_reply_lost_after_the_commit_leaves_the_outcome_open(calling: Calling, kind: FaultKind) -> None:
    """The case that matters: nothing is repeated inside; the same key then gets the answer that was lost."""
    customer_id, submission = calling.customer()
    calling.fault(kind, "sign", times=1)
    assert (await calling.deliver(customer_id, submission)).verdict is V.UNKNOWN
    assert calling.calls("sign") == 1
    assert (await calling.deliver(customer_id, submission)).verdict is V.ACCEPTED
    lost, replayed = calling.simulator.state.ledger.entries(customer_id)
    assert (lost.verified, lost.fate is Fate.SENT, replayed.replayed) == (True, False, True)


async def test_a_request_that_is_dropped_leaves_the_outcome_open(calling: Calling) -> None:
    """From outside it looks as a lost reply does."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    calling.fault(FaultKind.DROP_REQUEST, "sign", times=1)
    assert await calling.deliver(customer_id, submission) == Delivery(V.UNKNOWN, None)
    assert calling.calls("sign") == 1
    assert (await calling.deliver(customer_id, submission)).verdict is V.ACCEPTED


@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED])
async def test_an_answer_that_makes_no_sense_leaves_the_outcome_open(calling: Calling, kind: FaultKind) -> None:
    """A 200 with anything in it is not the contract's 204."""
    customer_id, submission = calling.customer()
    calling.fault(kind, "sign")
    assert await calling.deliver(customer_id, submission) == Delivery(V.UNKNOWN, 200)


async def test_a_slow_api_leaves_the_outcome_open(calling: Calling) -> None:
    """The request is cut off at its timeout, and may have been processed."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    calling.fault(FaultKind.LATENCY, "sign", seconds=30)
    delivery = await calling.deliver(customer_id, submission, timeout=timedelta(milliseconds=500))
    assert delivery == Delivery(V.UNKNOWN, None)


async def test_nothing_is_sent_when_the_time_is_over(calling: Calling) -> None:
    """A POST past its deadline is none."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    delivery = await calling.deliver(customer_id, submission, timeout=timedelta(0))
    assert delivery == Delivery(V.NOT_PROCESSED, None)
    assert calling.calls("sign") == 0


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(301, V.UNKNOWN), (302, V.UNKNOWN), (303, V.UNKNOWN), (307, V.NOT_PROCESSED), (308, V.NOT_PROCESSED)],
)
async def test_a_redirect_is_not_followed(start: StartCalling, status: int, verdict: DeliveryVerdict) -> None:
    """Neither on the same host nor to another: nobody else gets to see a token and a signature."""
    calling, elsewhere = await start(), await start()
    customer_id, submission = calling.customer()
    for location in ("/_sim/elsewhere", f"{elsewhere.simulator.origin}/_sim/elsewhere"):
        calling.fault(FaultKind.REDIRECT, "sign", status=status, location=location)
        assert await calling.deliver(customer_id, submission) == Delivery(verdict, status)
    assert calling.calls("elsewhere") + elsewhere.calls("elsewhere") == 0


async def test_only_a_uuid_becomes_a_part_of_a_path(calling: Calling) -> None:
    """Another customer id reaches no URL."""
    _, submission = calling.customer()
    with pytest.raises(MalformedRequest):
        await calling.deliver("../auth/token", submission)
    assert calling.calls("token") == 0


async def test_a_damaged_body_is_the_apis_to_refuse(calling: Calling) -> None:
    """The stored bytes are delivered unchanged, whatever they are."""
    customer_id, _ = calling.customer()
    damaged = Submission(b"not json", "signature")
    delivery = await calling.client.submit(customer_id, damaged, idempotency_key=damaged.idempotency_key, timeout=SOON)
    assert delivery == Delivery(V.REFUSED, 400)
