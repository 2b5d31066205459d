"""Creating a customer: once, whatever becomes of the answers."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from signer.domain.customer import CustomerIntent
from signer.domain.errors import BadUpstream, Conflict, ErrorCode, MalformedRequest, SignerError, Unavailable
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import OWNER_ID, SOON, Calling
from tests.integration.card_api.conftest import StartCalling

ROUTE = "create_customer"


@pytest.fixture
def intent() -> CustomerIntent:
    """The wish for a customer that is not there yet."""
    return CustomerIntent(OWNER_ID, str(uuid.uuid4()), OWNER_ID)


async def test_a_customer_is_created(calling: Calling, intent: CustomerIntent) -> None:
    """Its id is that of the card API, which has issued it a challenge."""
    customer_id = await calling.client.create_customer(intent, timeout=SOON)
    assert calling.simulator.state.customers.find(customer_id).external_id == intent.external_id
    assert await calling.client.fetch_challenge(customer_id, timeout=SOON)


async def test_the_same_wish_again_gives_the_same_customer(calling: Calling, intent: CustomerIntent) -> None:
    """Under its own key the answer is replayed."""
    first = await calling.client.create_customer(intent, timeout=SOON)
    assert await calling.client.create_customer(intent, timeout=SOON) == first


@pytest.mark.parametrize("kind", [FaultKind.DROP_REPLY, FaultKind.CUT_REPLY, FaultKind.DROP_REQUEST, FaultKind.STATUS])
async def test_what_was_lost_is_asked_for_again(calling: Calling, intent: CustomerIntent, kind: FaultKind) -> None:
    """The same body under the same key, within the timeout: one customer."""
    calling.fault(kind, ROUTE, times=2)
    customer_id = await calling.client.create_customer(intent, timeout=SOON)
    assert str(calling.simulator.state.customers.find(customer_id).id) == customer_id
    assert calling.calls(ROUTE) == 3


async def test_409_in_flight_is_asked_again(calling: Calling, intent: CustomerIntent) -> None:
    """Another request with this key is being worked on: its answer is ours."""
    calling.fault(FaultKind.CONFLICT, ROUTE, times=1)
    await calling.client.create_customer(intent, timeout=SOON)
    assert calling.outcomes(ROUTE) == {"409": 1, "201": 1}


@pytest.mark.parametrize("bare", [False, True])
async def test_409_customer_exists(start: StartCalling, intent: CustomerIntent, bare: bool) -> None:
    """Somebody else created it, and the contract has no way to learn its id; what says no word is asked a few times."""
    calling = await start({"bare_conflicts": bare})
    calling.simulator.state.customers.create(str(intent.account), intent.external_id, None)
    with pytest.raises(Conflict) as refusal:
        await calling.client.create_customer(intent, timeout=SOON)
    assert refusal.value.code is ErrorCode.CUSTOMER_EXISTS
    assert calling.calls(ROUTE) == (4 if bare else 1)


async def test_409_without_a_word_may_be_one_in_flight(start: StartCalling, intent: CustomerIntent) -> None:
    """Nobody is told that a customer exists while it is being created for him."""
    calling = await start({"bare_conflicts": True})
    calling.fault(FaultKind.CONFLICT, ROUTE, times=2)
    customer_id = await calling.client.create_customer(intent, timeout=SOON)
    assert str(calling.simulator.state.customers.find(customer_id).id) == customer_id


@pytest.mark.parametrize(
    ("status", "family", "code"),
    [
        (400, MalformedRequest, ErrorCode.REQUEST_MALFORMED),
        (403, Unavailable, ErrorCode.CARD_API_CREDENTIALS_REFUSED),
        (404, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER),
        (418, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER),
        (503, Unavailable, ErrorCode.CARD_API_UNAVAILABLE),
    ],
)
async def test_each_status_has_its_meaning(
    start: StartCalling, intent: CustomerIntent, status: int, family: type[SignerError], code: ErrorCode
) -> None:
    """What the contract and HTTP say about a status is what the error says."""
    calling = await start(read_attempts=1)
    calling.fault(FaultKind.STATUS, ROUTE, status=status)
    with pytest.raises(family) as refusal:
        await calling.client.create_customer(intent, timeout=SOON)
    assert refusal.value.code is code


@pytest.mark.parametrize(
    "kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED, FaultKind.REDIRECT]
)
async def test_an_answer_that_makes_no_sense(calling: Calling, intent: CustomerIntent, kind: FaultKind) -> None:
    """It is told; the same wish later finds the customer, for the key remembers."""
    calling.fault(kind, ROUTE)
    with pytest.raises(BadUpstream) as refusal:
        await calling.client.create_customer(intent, timeout=SOON)
    assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
    assert calling.calls("elsewhere") == 0
    calling.calm()
    assert await calling.client.create_customer(intent, timeout=SOON)


async def test_nothing_is_sent_when_the_time_is_over(calling: Calling, intent: CustomerIntent) -> None:
    """A POST past its deadline is none."""
    await calling.client.check()
    with pytest.raises(Unavailable):
        await calling.client.create_customer(intent, timeout=timedelta(0))
    assert calling.calls(ROUTE) == 0
