"""Idempotency-Key of modifying requests: replay, conflict, reuse, and lifetime."""

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
    """The backend of a simulator that does not require a signature to cover the key, so that it can be omitted."""
    _, backend = await start(required_components=("@method",))
    return backend


async def test_modifying_request_needs_a_key(lenient: WalletBackend) -> None:
    """400 without one; a read needs none."""
    reply = await lenient.call("POST", "/v1/customers", CUSTOMER, key=None, signing=WITHOUT_KEY)
    assert (reply.status, reply.code) == (400, "idempotency_key_missing")
    customer = await lenient.create_customer()
    body = delivery(customer["challenge"])
    path = f"/v1/customers/{customer['id']}/challenge/sign"
    reply = await lenient.call("POST", path, body, key=None, signing=WITHOUT_KEY)
    assert (reply.status, reply.code) == (400, "idempotency_key_missing")
    assert (await lenient.call("GET", f"/v1/customers/{customer['id']}")).status == 200


async def test_missing_key_is_an_invalid_request_signature_by_default(backend: WalletBackend) -> None:
    """The guide's 400 for it: a signature must cover the key."""
    reply = await backend.call("POST", "/v1/customers", CUSTOMER, key=None, signing=WITHOUT_KEY)
    assert (reply.status, reply.body) == (400, b"invalid required signature")


async def test_key_must_be_a_uuid(backend: WalletBackend) -> None:
    """400 for any other text."""
    reply = await backend.call("POST", "/v1/customers", CUSTOMER, key="my-key")
    assert (reply.status, reply.code) == (400, "idempotency_key_invalid")


async def test_same_key_and_payload_get_identical_response(backend: WalletBackend) -> None:
    """A creation repeated under its key returns 201 with the same bytes, and creates nothing."""
    first = await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)
    again = await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY.upper())
    assert (again.status, again.body) == (201, first.body)
    fresh = await backend.call("POST", "/v1/customers", CUSTOMER)
    assert fresh.status == 409


async def test_repeated_delivery_gets_first_response(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """204 under the same key, 409 under a new one; only the first was verified."""
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


async def test_refusal_is_replayed(backend: WalletBackend) -> None:
    """A repeated invalid delivery does not replace the challenge again."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"], signer=STRANGER)
    first = await backend.deliver(customer["id"], body, key=KEY)
    renewed = await backend.challenge(customer["id"])
    again = await backend.deliver(customer["id"], body, key=KEY)
    assert (again.status, again.body) == (400, first.body)
    assert await backend.challenge(customer["id"]) == renewed


async def test_other_payload_under_used_key_is_refused(backend: WalletBackend) -> None:
    """422 for another body, and for the same body on another path."""
    await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)
    reply = await backend.call("POST", "/v1/customers", CUSTOMER | {"externalId": "two"}, key=KEY)
    assert (reply.status, reply.code) == (422, "idempotency_key_reused")
    path = f"/v1/customers/{uuid.uuid4()}/challenge/sign"
    reply = await backend.call("POST", path, CUSTOMER, key=KEY)
    assert (reply.status, reply.code) == (422, "idempotency_key_reused")


async def test_key_in_flight_is_refused(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """409 for the same payload, 422 for another; afterwards the response is replayed."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    customer_lock = simulator.state.customers.find(customer["id"]).lock
    async with customer_lock:  # the handler waits for it, with its key in flight
        both = [asyncio.create_task(backend.deliver(customer["id"], body, key=KEY)) for _ in range(2)]
        done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert [(task.result().status, task.result().code) for task in done] == [(409, "idempotency_conflict")]
        other = await backend.deliver(customer["id"], body | {"ownerId": "x"}, key=KEY)
        assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert [(await task).status for task in waiting] == [204]
    assert (await backend.deliver(customer["id"], body, key=KEY)).status == 204
    assert [entry.verified for entry in simulator.state.ledger.entries()].count(True) == 1


async def test_key_expires_after_an_hour(start: StartSimulator) -> None:
    """Then the same request is executed again."""
    simulator, backend = await start(token_lifetime=10_000)
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201
    simulator.state.clock.offset = 3599
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201
    simulator.state.clock.offset = 3601
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 409


@pytest.mark.parametrize(("replayed", "second"), [(True, 503), (False, 201)])
async def test_5xx_is_kept_if_switch_is_on(start: StartSimulator, replayed: bool, second: int) -> None:
    """Otherwise the key can be used again."""
    fault = Fault(FaultKind.STATUS, route="create_customer", times=1)
    _, backend = await start(replay_server_errors=replayed, faults=(fault,))
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 503
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == second


GATES = [
    *((Fault(FaultKind.STATUS, "create_customer", status=status, times=1), status) for status in (401, 403, 429)),
    (Fault(FaultKind.REFUSE_SIGNATURE, "create_customer", times=1), 400),
]
gates = pytest.mark.parametrize(("fault", "status"), GATES, ids=lambda value: str(getattr(value, "kind", value)))


@gates
async def test_refusal_of_a_gate_is_never_kept(start: StartSimulator, fault: Fault, status: int) -> None:
    """The request was not executed: the same key and payload are executed afterwards."""
    _, backend = await start(replay_server_errors=True, faults=(fault,))
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == status
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201


@gates
async def test_gate_refuses_before_a_kept_response_is_replayed(
    simulator: RunningSimulator, backend: WalletBackend, fault: Fault, status: int
) -> None:
    """The Idempotency-Key opens no gate; afterwards the kept response is there."""
    first = await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)
    simulator.state.faults.put([fault])
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == status
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).body == first.body


async def test_refusal_of_a_handler_is_kept(start: StartSimulator) -> None:
    """A simulated 404 or JSON 400 stands for the handler's own: it is replayed for an hour."""
    fault = Fault(FaultKind.STATUS, "create_customer", status=400, times=1)
    _, backend = await start(faults=(fault,))
    for _ in range(2):
        assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).code == "simulated_failure"


async def test_401_does_not_use_key(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """The same key and payload are executed afterwards."""
    simulator.state.revoke_tokens()
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 401
    settings = simulator.state.settings
    backend.token, _ = simulator.state.tokens.issue(settings.api_key, settings.api_secret)
    assert (await backend.call("POST", "/v1/customers", CUSTOMER, key=KEY)).status == 201
