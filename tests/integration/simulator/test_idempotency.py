"""Idempotency-Key on modifying requests: replay, conflict, reuse, and the life of a key."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from signer.simulator.app import RunningSimulator
from signer.simulator.faults import Fault, FaultKind
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.wallet_backend import OWNER_ID, STRANGER, Signing, WalletBackend, delivery

KEY = "123e4567-e89b-12d3-a456-426614174000"
CUSTOMER = {"chainId": OWNER_ID, "externalId": "one"}
WITHOUT_KEY = Signing(covers_idempotency_key=False)


@pytest.fixture
async def lenient(start: StartSimulator) -> WalletBackend:
    """The backend of a simulator that does not ask for the key to be covered, so that it can be left out."""
    _, backend = await start(required_components=("@method",))
    return backend


async def test_a_modifying_request_needs_a_key(lenient: WalletBackend) -> None:
    """400 without one; reading needs none."""
    reply = await lenient.call("POST", "/v1/customers", CUSTOMER, key=None, signing=WITHOUT_KEY)
    assert (reply.status, reply.code) == (400, "idempotency_key_missing")
    customer = await lenient.create_customer()
    body = delivery(customer["challenge"])
    path = f"/v1/customers/{customer['id']}/challenge/sign"
    reply = await lenient.call("POST", path, body, key=None, signing=WITHOUT_KEY)
    assert (reply.status, reply.code) == (400, "idempotency_key_missing")
    assert (await lenient.call("GET", f"/v1/customers/{customer['id']}")).status == 200


async def test_a_key_is_a_uuid(backend: WalletBackend) -> None:
    """400 for any other text."""
    reply = await backend.call("POST", "/v1/customers", CUSTOMER, key="my-key")
    assert (reply.status, reply.code) == (400, "idempotency_key_invalid")


async def test_the_same_key_and_payload_get_the_identical_answer(backend: WalletBackend) -> None:
    """A creation repeated under its key answers 201 with the same bytes, and creates nothing."""
    first = await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)
    again = await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY.upper())
    assert (again.status, again.body) == (201, first.body)
    fresh = await backend.call("POST", "/v1/customers", CUSTOMER)
    assert fresh.status == 409


async def test_a_repeated_delivery_is_answered_as_the_first(
    simulator: RunningSimulator, backend: WalletBackend
) -> None:
    """204 again under the same key, where a fresh key gets 409; one of them was verified."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    assert (await backend.deliver(customer["id"], body, key=KEY)).status == 204
    assert (await backend.deliver(customer["id"], body, key=KEY)).status == 204
    assert (await backend.deliver(customer["id"], body)).status == 409
    assert [(e.verified, e.replayed) for e in simulator.state.ledger.entries()] == [
        (True, False),
        (False, True),
        (False, False),
    ]


async def test_a_refusal_is_replayed_too(backend: WalletBackend) -> None:
    """The answer is kept whatever it was: a repeated bad delivery does not cost a second challenge."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"], signer=STRANGER)
    first = await backend.deliver(customer["id"], body, key=KEY)
    renewed = await backend.challenge(customer["id"])
    again = await backend.deliver(customer["id"], body, key=KEY)
    assert (again.status, again.body) == (400, first.body)
    assert await backend.challenge(customer["id"]) == renewed


async def test_another_payload_under_a_used_key_is_refused(backend: WalletBackend) -> None:
    """422 for another body, and for the same body on another path."""
    await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)
    reply = await backend.call("POST", "/v1/customers", CUSTOMER | {"externalId": "two"}, key=KEY)
    assert (reply.status, reply.code) == (422, "idempotency_key_reused")
    path = f"/v1/customers/{uuid.uuid4()}/challenge/sign"
    reply = await backend.call("POST", path, CUSTOMER, key=KEY)
    assert (reply.status, reply.code) == (422, "idempotency_key_reused")


async def test_a_request_in_flight_holds_its_key(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """409 with the idempotency conflict for the same payload, 422 for another; then the answer, replayed."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    held = simulator.state.customers.find(customer["id"]).lock
    async with held:  # the handler waits for this customer, its key in flight
        both = [asyncio.create_task(backend.deliver(customer["id"], body, key=KEY)) for _ in range(2)]
        answered, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert [(task.result().status, task.result().code) for task in answered] == [(409, "idempotency_conflict")]
        other = await backend.deliver(customer["id"], body | {"ownerId": "x"}, key=KEY)
        assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert [(await task).status for task in waiting] == [204]
    assert (await backend.deliver(customer["id"], body, key=KEY)).status == 204
    assert [entry.verified for entry in simulator.state.ledger.entries()].count(True) == 1


async def test_a_key_lives_an_hour(start: StartSimulator) -> None:
    """After that it is a new key: the same request is executed again."""
    simulator, backend = await start(token_lifetime=10_000)
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201
    simulator.state.clock.offset = 3599
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201
    simulator.state.clock.offset = 3601
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 409


@pytest.mark.parametrize(("replayed", "second"), [(True, 503), (False, 201)])
async def test_whether_5xx_answers_are_kept_is_a_switch(start: StartSimulator, replayed: bool, second: int) -> None:
    """With it, a server error under a key stays the answer for its hour; without, the key is free again."""
    fault = Fault(FaultKind.STATUS, route="create_customer", times=1)
    _, backend = await start(replay_server_errors=replayed, faults=(fault,))
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 503
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == second


async def test_429_is_never_kept(start: StartSimulator) -> None:
    """A limit says nothing about the request."""
    fault = Fault(FaultKind.STATUS, status=429, retry_after=1, times=1)
    _, backend = await start(replay_server_errors=True, faults=(fault,))
    reply = await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201


async def test_what_is_refused_at_the_door_does_not_use_a_key(
    simulator: RunningSimulator, backend: WalletBackend
) -> None:
    """After a 401 the same key and payload are executed."""
    simulator.state.revoke_tokens()
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 401
    settings = simulator.state.settings
    backend.token, _ = simulator.state.tokens.issue(settings.api_key, settings.api_secret)
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201
