"""The states of a customer, the requests that change them, and the list of customers."""

from __future__ import annotations

import pytest

from signer.simulator.app import RunningSimulator
from signer.simulator.customers import SimulatedStatus
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.wallet_backend import OWNER_ID, STRANGER, WalletBackend, delivery

S = SimulatedStatus
UNKNOWN_CUSTOMER = "00000000-0000-4000-8000-000000000000"
VERIFY, REJECT = "/v1/simulator/customers/{}/verify", "/v1/simulator/customers/{}/reject"
DEACTIVATE, ACTIVATE = "/v1/customers/{}/deactivate", "/_sim/activate/{}"


async def signed_customer(backend: WalletBackend) -> str:
    """Create a customer, deliver its signature, and return its id."""
    customer = await backend.create_customer()
    assert (await backend.deliver(customer["id"], delivery(customer["challenge"]))).status == 204
    return str(customer["id"])


async def status_of(backend: WalletBackend, customer_id: str) -> str:
    """Return the customer's status."""
    return str((await backend.call("GET", f"/v1/customers/{customer_id}")).json["status"])


async def test_signed_customer_is_screened_and_then_verified(start: StartSimulator) -> None:
    """``initiating → screening → verifying → active``; the sandbox ends the screening by itself."""
    simulator, backend = await start(screening_time=60)
    customer = await backend.create_customer()
    path = VERIFY.format(customer["id"])
    assert customer["status"] == "initiating"
    assert (await backend.call("PATCH", path)).code == "customer_status_conflict"
    await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert await status_of(backend, customer["id"]) == "screening"
    assert (await backend.call("PATCH", path)).code == "customer_status_conflict"
    simulator.state.clock.offset = 61
    assert await status_of(backend, customer["id"]) == "verifying"
    reply = await backend.call("PATCH", path)
    assert (reply.status, reply.body) == (202, b"")
    assert await status_of(backend, customer["id"]) == "active"


async def test_rejected_customer_stays_rejected(backend: WalletBackend) -> None:
    """202; nothing changes it any more, and its challenge counts as signed."""
    customer_id = await signed_customer(backend)
    challenge = await backend.challenge(customer_id)
    assert (await backend.call("PATCH", REJECT.format(customer_id))).status == 202
    assert await status_of(backend, customer_id) == "rejected"
    for path in (VERIFY, REJECT, DEACTIVATE):
        assert (await backend.call("PATCH", path.format(customer_id))).status == 409
    assert (await backend.deliver(customer_id, delivery(challenge))).code == "challenge_already_signed"
    assert await status_of(backend, customer_id) == "rejected"


async def test_active_customer_can_be_deactivated_and_activated_again(backend: WalletBackend) -> None:
    """``active → inactive`` by request; back only by the card API itself."""
    customer_id = await signed_customer(backend)
    assert (await backend.send("POST", ACTIVATE.format(customer_id))).status == 409
    await backend.call("PATCH", VERIFY.format(customer_id))
    assert (await backend.call("PATCH", DEACTIVATE.format(customer_id))).status == 202
    assert await status_of(backend, customer_id) == "inactive"
    assert (await backend.send("POST", ACTIVATE.format(customer_id))).status == 204
    assert await status_of(backend, customer_id) == "active"


@pytest.mark.parametrize("path", [VERIFY, REJECT, DEACTIVATE])
async def test_change_of_unknown_customer_is_not_found(backend: WalletBackend, path: str) -> None:
    """404."""
    reply = await backend.call("PATCH", path.format(UNKNOWN_CUSTOMER))
    assert (reply.status, reply.code) == (404, "customer_not_found")


@pytest.mark.parametrize("path", [VERIFY, REJECT, DEACTIVATE])
async def test_change_needs_token_signature_and_key(backend: WalletBackend, path: str) -> None:
    """As every modifying request: 401 without a token, 400 without a signature."""
    assert (await backend.send("PATCH", path.format(UNKNOWN_CUSTOMER))).status == 401
    headers = backend.signed("PATCH", path.format(UNKNOWN_CUSTOMER), None)
    del headers["Signature"]
    assert (await backend.send("PATCH", path.format(UNKNOWN_CUSTOMER), headers=headers)).status == 400


async def test_repeated_change_gets_first_response(backend: WalletBackend) -> None:
    """202 under the same Idempotency-Key, 409 under a new one."""
    customer_id = await signed_customer(backend)
    path, key = VERIFY.format(customer_id), "123e4567-e89b-12d3-a456-426614174000"
    assert [(await backend.call("PATCH", path, key=key)).status for _ in range(2)] == [202, 202]
    assert (await backend.call("PATCH", path)).status == 409


async def test_list_has_all_customers_without_their_challenges(
    simulator: RunningSimulator, backend: WalletBackend
) -> None:
    """In the order of their creation, with their present status; two may share an external id."""
    assert (await backend.call("GET", "/v1/customers")).body == b"[]"
    first = await backend.create_customer(OWNER_ID, "one")
    second = await backend.create_customer(f"eip155:324:{STRANGER.address}", "one")
    await backend.deliver(first["id"], delivery(first["challenge"]))
    listed = (await backend.call("GET", "/v1/customers")).list
    assert [customer["id"] for customer in listed] == [first["id"], second["id"]]
    assert [customer["status"] for customer in listed] == ["verifying", "initiating"]
    assert listed[1] == {name: value for name, value in second.items() if name != "challenge"}
    assert simulator.state.ledger.calls("customers") == 2


async def test_list_needs_token_and_signature(backend: WalletBackend) -> None:
    """401 without a token, 400 in plain text without a signature."""
    assert (await backend.send("GET", "/v1/customers")).status == 401
    headers = backend.signed("GET", "/v1/customers", None)
    del headers["Signature"]
    reply = await backend.send("GET", "/v1/customers", headers=headers)
    assert (reply.status, reply.body) == (400, b"invalid required signature")


def test_statuses_are_those_of_the_guide() -> None:
    """A closed set."""
    assert {*S} == {"initiating", "screening", "verifying", "active", "inactive", "rejected"}
