"""Deliveries: every documented status, and every fault of the simulator."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import MalformedRequest
from signer.domain.record import Submission
from signer.simulator.faults import FaultKind
from signer.simulator.ledger import Fate
from tests.integration.card_api.calling import Calling
from tests.integration.card_api.conftest import StartCalling

V = DeliveryVerdict


@dataclass(frozen=True, slots=True, repr=False)
class KeyReused(Submission):
    """A submission under the key of another body, which only a bug can make."""

    key: str

    @property
    def idempotency_key(self) -> str:
        """The other body's key."""
        return self.key


def under_another_key(submission: Submission) -> Submission:
    """Return the same JSON in another body."""
    return Submission(submission.body + b" ", submission.signature)


async def test_signature_is_verified(calling: Calling) -> None:
    """204: the simulator verified the request, with http-message-signatures, and the owner's signature."""
    customer_id, submission = calling.customer()
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.ACCEPTED, 204)
    (entry,) = calling.simulator.state.ledger.entries(customer_id)
    assert entry.verified
    assert entry.idempotency_key == submission.idempotency_key


async def test_fifty_deliveries_at_once(calling: Calling) -> None:
    """They share one token and the connection pool."""
    deliveries = [calling.customer() for _ in range(50)]
    outcomes = await asyncio.gather(*(calling.deliver(*delivery) for delivery in deliveries))
    assert set(outcomes) == {DeliveryResult(V.ACCEPTED, 204)}
    assert calling.calls("token") == 1


async def test_repeated_delivery_is_replayed(calling: Calling) -> None:
    """Under the same key it has the same result and counts once."""
    customer_id, submission = calling.customer()
    for _ in range(2):
        assert await calling.deliver(customer_id, submission) == DeliveryResult(V.ACCEPTED, 204)
    assert [entry.replayed for entry in calling.simulator.state.ledger.entries(customer_id)] == [False, True]


async def test_409_already_signed(calling: Calling) -> None:
    """Another request delivered it: the first meaning of 409."""
    customer_id, submission = calling.customer()
    await calling.deliver(customer_id, submission)
    again = await calling.deliver(customer_id, under_another_key(submission))
    assert again == DeliveryResult(V.ALREADY_SIGNED, 409)


async def test_409_in_flight(calling: Calling) -> None:
    """Another request with this key is in progress: the second meaning of 409."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.CONFLICT, "sign", times=1)
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.NOT_PROCESSED, 409)
    assert (await calling.deliver(customer_id, submission)).verdict is V.ACCEPTED


async def test_409_without_body(start: StartCalling) -> None:
    """Both meanings are ambiguous; the application reads the customer's status."""
    calling = await start({"bare_conflicts": True})
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.CONFLICT, "sign", times=1)
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.CONFLICT_AMBIGUOUS, 409)
    await calling.deliver(customer_id, submission)
    again = await calling.deliver(customer_id, under_another_key(submission))
    assert again == DeliveryResult(V.CONFLICT_AMBIGUOUS, 409)


async def test_422_key_reused(calling: Calling) -> None:
    """The key of another body."""
    customer_id, submission = calling.customer()
    await calling.deliver(customer_id, submission)
    other_id, other = calling.customer()
    reused = await calling.deliver(other_id, KeyReused(other.body, other.signature, submission.idempotency_key))
    assert reused == DeliveryResult(V.IDEMPOTENCY_KEY_REFUSED, 422)


async def test_400_refused(calling: Calling) -> None:
    """A challenge that is not the customer's."""
    customer_id, _ = calling.customer()
    _, of_another = calling.customer()
    assert await calling.deliver(customer_id, of_another) == DeliveryResult(V.REFUSED, 400)


async def test_404_customer_unknown(calling: Calling) -> None:
    """No such customer."""
    _, submission = calling.customer()
    assert await calling.deliver(str(uuid.uuid4()), submission) == DeliveryResult(V.CUSTOMER_UNKNOWN, 404)


async def test_403_forbidden(calling: Calling) -> None:
    """A new token would not help."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "sign", status=403)
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.CREDENTIALS_REFUSED, 403)
    assert (calling.calls("sign"), calling.calls("token")) == (1, 1)


async def test_429_is_one_attempt(calling: Calling) -> None:
    """``Retry-After`` is passed on; the application plans the next attempt."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "sign", status=429, retry_after=7)
    delivery = await calling.deliver(customer_id, submission)
    assert delivery == DeliveryResult(V.NOT_PROCESSED, 429, timedelta(seconds=7))
    assert calling.calls("sign") == 1


@pytest.mark.parametrize("replay_server_errors", [False, True])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_5xx_after_commit_is_unknown(start: StartCalling, status: int, replay_server_errors: bool) -> None:
    """It is one attempt; a repetition under the same key changes nothing."""
    calling = await start({"replay_server_errors": replay_server_errors})
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS_AFTER_COMMIT, "sign", status=status, retry_after=3)
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.UNKNOWN, status, timedelta(seconds=3))
    assert calling.calls("sign") == 1
    calling.calm()
    again = await calling.deliver(customer_id, submission)
    assert again.verdict is (V.UNKNOWN if replay_server_errors else V.ALREADY_SIGNED)


@pytest.mark.parametrize("kind", [FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_response_lost_after_commit_is_unknown(calling: Calling, kind: FaultKind) -> None:
    """It is not repeated inside; a repetition under the same key gets the lost response."""
    customer_id, submission = calling.customer()
    calling.fault(kind, "sign", times=1)
    assert (await calling.deliver(customer_id, submission)).verdict is V.UNKNOWN
    assert calling.calls("sign") == 1
    assert (await calling.deliver(customer_id, submission)).verdict is V.ACCEPTED
    lost, replayed = calling.simulator.state.ledger.entries(customer_id)
    assert (lost.verified, lost.fate is Fate.SENT, replayed.replayed) == (True, False, True)


async def test_dropped_request_is_unknown(calling: Calling) -> None:
    """The client cannot tell it from a lost response."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    calling.fault(FaultKind.DROP_REQUEST, "sign", times=1)
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.UNKNOWN, None)
    assert calling.calls("sign") == 1
    assert (await calling.deliver(customer_id, submission)).verdict is V.ACCEPTED


@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED])
async def test_unreadable_response_is_unknown(calling: Calling, kind: FaultKind) -> None:
    """A 200 with any body is not the contract's 204."""
    customer_id, submission = calling.customer()
    calling.fault(kind, "sign")
    assert await calling.deliver(customer_id, submission) == DeliveryResult(V.UNKNOWN, 200)


async def test_timeout_is_unknown(calling: Calling) -> None:
    """The request may have been processed."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    calling.fault(FaultKind.LATENCY, "sign", seconds=30)
    delivery = await calling.deliver(customer_id, submission, timeout=timedelta(milliseconds=500))
    assert delivery == DeliveryResult(V.UNKNOWN, None)


async def test_nothing_is_sent_after_deadline(calling: Calling) -> None:
    """No POST is sent."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    delivery = await calling.deliver(customer_id, submission, timeout=timedelta(0))
    assert delivery == DeliveryResult(V.NOT_PROCESSED, None)
    assert calling.calls("sign") == 0


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(301, V.UNKNOWN), (302, V.UNKNOWN), (303, V.UNKNOWN), (307, V.NOT_PROCESSED), (308, V.NOT_PROCESSED)],
)
async def test_redirect_is_not_followed(start: StartCalling, status: int, verdict: DeliveryVerdict) -> None:
    """Neither on the same host nor to another: token and signature are sent to the configured host only."""
    calling, other = await start(), await start()
    customer_id, submission = calling.customer()
    for location in ("/_sim/elsewhere", f"{other.simulator.origin}/_sim/elsewhere"):
        calling.fault(FaultKind.REDIRECT, "sign", status=status, location=location)
        assert await calling.deliver(customer_id, submission) == DeliveryResult(verdict, status)
    assert calling.calls("elsewhere") + other.calls("elsewhere") == 0


async def test_customer_id_must_be_a_uuid(calling: Calling) -> None:
    """Any other id never becomes part of a URL."""
    _, submission = calling.customer()
    with pytest.raises(MalformedRequest):
        await calling.deliver("../auth/token", submission)
    assert calling.calls("token") == 0


async def test_body_is_delivered_unchanged(calling: Calling) -> None:
    """Even if it is malformed: the card API refuses it."""
    customer_id, _ = calling.customer()
    damaged = Submission(b"not json", "signature")
    delivery = await calling.deliver(customer_id, damaged)
    assert delivery == DeliveryResult(V.REFUSED, 400)
