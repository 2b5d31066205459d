"""The creation of a customer: once, whatever happens to the responses."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.requests import MAX_CUSTOMER_LIST
from signer.application.ports import NewCustomer
from signer.domain.customer import CustomerIntent
from signer.domain.errors import BadUpstream, ErrorCode, MalformedRequest, SignerError, Unavailable
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import CUSTOMER, OWNER_ID, SOON, Calling, make_client
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import http, token_response

ROUTE = "create_customer"


@pytest.fixture
def intent() -> CustomerIntent:
    """The intent to create a customer that does not exist yet."""
    return CustomerIntent(OWNER_ID, str(uuid.uuid4()), OWNER_ID)


async def created(calling: Calling, intent: CustomerIntent) -> NewCustomer:
    """Create the customer and return it."""
    customer = await calling.client.create_customer(intent, timeout=SOON)
    assert customer is not None
    return customer


async def test_customer_is_created(calling: Calling, intent: CustomerIntent) -> None:
    """The card API returns its id and its challenge."""
    customer = await created(calling, intent)
    assert calling.simulator.state.customers.find(customer.id).external_id == intent.external_id
    assert await calling.client.fetch_challenge(customer.id, timeout=SOON) == customer.challenge


async def test_same_intent_returns_same_customer(calling: Calling, intent: CustomerIntent) -> None:
    """The card API replays its response under the same key."""
    first = await created(calling, intent)
    assert await calling.client.create_customer(intent, timeout=SOON) == first


@pytest.mark.parametrize("kind", [FaultKind.DROP_REPLY, FaultKind.CUT_REPLY, FaultKind.DROP_REQUEST, FaultKind.STATUS])
async def test_lost_response_is_retried(calling: Calling, intent: CustomerIntent, kind: FaultKind) -> None:
    """The same body under the same key, within the timeout: one customer."""
    calling.fault(kind, ROUTE, times=2)
    customer = await created(calling, intent)
    assert str(calling.simulator.state.customers.find(customer.id).id) == customer.id
    assert calling.calls(ROUTE) == 3


async def test_409_in_flight_is_retried(calling: Calling, intent: CustomerIntent) -> None:
    """Another request with this key is in progress: its response is ours."""
    calling.fault(FaultKind.CONFLICT, ROUTE, times=1)
    await calling.client.create_customer(intent, timeout=SOON)
    assert calling.outcomes(ROUTE) == {"409": 1, "201": 1}


@pytest.mark.parametrize("bare", [False, True])
async def test_409_customer_exists(start: StartCalling, intent: CustomerIntent, bare: bool) -> None:
    """Another client created it, and the contract does not return its id; a 409 without a body is retried first."""
    calling = await start({"bare_conflicts": bare})
    calling.simulator.state.customers.create(str(intent.account), intent.external_id, None)
    assert await calling.client.create_customer(intent, timeout=SOON) is None
    assert calling.calls(ROUTE) == (4 if bare else 1)


async def test_409_without_body_may_be_in_flight(start: StartCalling, intent: CustomerIntent) -> None:
    """The caller is not told that the customer exists while it is being created."""
    calling = await start({"bare_conflicts": True})
    calling.fault(FaultKind.CONFLICT, ROUTE, times=2)
    customer = await created(calling, intent)
    assert str(calling.simulator.state.customers.find(customer.id).id) == customer.id


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
async def test_each_status_has_its_error(
    start: StartCalling, intent: CustomerIntent, status: int, family: type[SignerError], code: ErrorCode
) -> None:
    """As the contract and HTTP define it."""
    calling = await start(read_attempts=1)
    calling.fault(FaultKind.STATUS, ROUTE, status=status)
    with pytest.raises(family) as refusal:
        await calling.client.create_customer(intent, timeout=SOON)
    assert refusal.value.code is code


@pytest.mark.parametrize(
    "kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED, FaultKind.REDIRECT]
)
async def test_unreadable_response_is_raised(calling: Calling, intent: CustomerIntent, kind: FaultKind) -> None:
    """The same intent later returns the customer, because the card API remembers the key."""
    calling.fault(kind, ROUTE)
    with pytest.raises(BadUpstream) as refusal:
        await calling.client.create_customer(intent, timeout=SOON)
    assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
    assert calling.calls("elsewhere") == 0
    calling.calm()
    assert await calling.client.create_customer(intent, timeout=SOON) is not None


async def test_nothing_is_sent_after_deadline(calling: Calling, intent: CustomerIntent) -> None:
    """No POST is sent."""
    await calling.client.check()
    with pytest.raises(Unavailable):
        await calling.client.create_customer(intent, timeout=timedelta(0))
    assert calling.calls(ROUTE) == 0


def list_of(intent: CustomerIntent, size: int) -> bytes:
    """Return a list with the intent's customer at its end, of this many bytes."""
    row = {"id": CUSTOMER, "externalId": intent.external_id, "chainId": str(intent.account), "status": "initiating"}
    listed = json.dumps([{"externalId": ""}, row]).encode()
    return listed.replace(b'""', b'"' + b"x" * (size - len(listed)) + b'"', 1)


async def test_existing_customer_is_found_in_a_long_list(
    start_raw: StartRaw, session: aiohttp.ClientSession, tmp_path: Path, intent: CustomerIntent
) -> None:
    """The list is requested once, signed like every request, and may be 4 MiB long; concurrent look-ups take turns."""
    server = await start_raw(token_response(), http(200, list_of(intent, MAX_CUSTOMER_LIST)))
    client = make_client(server.base_url, session, tmp_path)
    assert await client.find_customer(intent, timeout=SOON) == CUSTOMER
    token, listing = server.received
    assert (token.line, listing.line) == ("POST /v1/auth/token HTTP/1.1", "GET /v1/customers HTTP/1.1")
    assert "signature" in listing.headers
    found = await asyncio.gather(*(client.find_customer(intent, timeout=SOON) for _ in range(2)))
    assert found == [CUSTOMER] * 2
    await client.aclose()


async def test_longer_list_is_not_read(
    start_raw: StartRaw, session: aiohttp.ClientSession, tmp_path: Path, intent: CustomerIntent
) -> None:
    """One byte more is an invalid response."""
    server = await start_raw(token_response(), http(200, list_of(intent, MAX_CUSTOMER_LIST + 1)))
    client = make_client(server.base_url, session, tmp_path)
    with pytest.raises(BadUpstream, match="longer than the 4194304 bytes"):
        await client.find_customer(intent, timeout=SOON)
    await client.aclose()


async def test_failed_look_up_is_not_retried(
    start_raw: StartRaw, session: aiohttp.ClientSession, tmp_path: Path, intent: CustomerIntent
) -> None:
    """A list is long: the caller's next request repeats it."""
    server = await start_raw(token_response(), http(503))
    client = make_client(server.base_url, session, tmp_path)
    with pytest.raises(Unavailable) as refusal:
        await client.find_customer(intent, timeout=SOON)
    assert refusal.value.code is ErrorCode.CARD_API_UNAVAILABLE
    assert len(server.received) == 2
    await client.aclose()
