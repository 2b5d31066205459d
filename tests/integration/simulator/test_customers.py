"""``POST /v1/customers``, ``GET /v1/customers/{id}`` and ``GET …/challenge``."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import datetime
from uuid import UUID

import pytest

from signer.simulator.app import RunningSimulator
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.golden import GOLDEN_CHALLENGE
from tests.integration.simulator.wallet_backend import OWNER, OWNER_ID, STRANGER, WalletBackend, delivery

WALLET_ID = "eip155:280:0x22227A31dd842196A246d8f3b775998560eAa61d"
NOWHERE = "/v1/customers/00000000-0000-4000-8000-000000000000"


def text_of(challenge: str) -> str:
    """Return the message in a challenge."""
    return b64decode(challenge, validate=True).decode("ascii")


async def test_new_customer_has_fields_of_guide(backend: WalletBackend) -> None:
    """201 with exactly the fields of the guide's example."""
    customer = await backend.create_customer(external_id="27c9aa3b-f12d-43b9-8e91-5264ccc998de")
    assert customer.keys() == {"chainId", "challenge", "createdAt", "externalId", "id", "status", "updatedAt"}
    assert customer["chainId"] == OWNER_ID
    assert customer["externalId"] == "27c9aa3b-f12d-43b9-8e91-5264ccc998de"
    assert customer["status"] == "initiating"
    assert str(UUID(customer["id"])) == customer["id"]
    assert customer["createdAt"] == customer["updatedAt"]
    assert datetime.fromisoformat(customer["createdAt"]).tzinfo is not None


async def test_challenge_equals_golden_one_except_nonce_and_time(backend: WalletBackend) -> None:
    """With its owner and chain, every other byte is equal: domain, statement, URI, order, line ends."""
    owner = "eip155:280:0x43158f45b5EbD7b1179130130DF00393928C2691"
    customer = await backend.create_customer(WALLET_ID, ownerId=owner)
    issued = text_of(customer["challenge"])
    changing = r"Nonce: [A-Za-z0-9]{16,}\nIssued At: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z"
    assert re.search(changing, issued)
    assert re.sub(changing, "", issued) == re.sub(changing, "", text_of(GOLDEN_CHALLENGE))


async def test_every_challenge_has_another_nonce(backend: WalletBackend) -> None:
    """Two customers never get the same message."""
    challenges = {(await backend.create_customer())["challenge"] for _ in range(5)}
    nonces = {re.search(r"Nonce: (\w+)", text_of(challenge))[1] for challenge in challenges}  # type: ignore[index]
    assert len(nonces) == 5


async def test_domain_uri_and_statement_are_settings(start: StartSimulator) -> None:
    """For example the production host."""
    _, backend = await start(domain="api.offblocks.xyz", statement="Another statement")
    issued = text_of((await backend.create_customer())["challenge"])
    assert issued.startswith("api.offblocks.xyz wants you to sign in with your Ethereum account:\n")
    assert "\n\nAnother statement\n\nURI: https://api.offblocks.xyz\n" in issued


async def test_challenge_names_customer_by_default(backend: WalletBackend) -> None:
    """On the customer's chain, if no owner is known."""
    issued = text_of((await backend.create_customer())["challenge"])
    assert issued.split("\n")[1] == OWNER.address
    assert "\nChain ID: 324\n" in issued


async def test_owner_comes_from_request_admin_api_or_settings(start: StartSimulator) -> None:
    """In this order of precedence."""
    _, backend = await start(owners={WALLET_ID: f"eip155:280:{OWNER.address}"})

    async def owner_in_challenge(**fields: str) -> str:
        return text_of((await backend.create_customer(WALLET_ID, **fields))["challenge"]).split("\n")[1]

    assert await owner_in_challenge() == OWNER.address
    reply = await backend.send("PUT", "/_sim/owners", body={WALLET_ID.lower(): f"eip155:280:{STRANGER.address}"})
    assert reply.status == 204
    assert await owner_in_challenge() == STRANGER.address
    assert await owner_in_challenge(ownerId=f"eip155:280:{OWNER.address}") == OWNER.address


@pytest.mark.parametrize("body", [{WALLET_ID: "nobody"}, {"nobody": WALLET_ID}, {WALLET_ID: 1}, []])
async def test_malformed_owners_are_refused(backend: WalletBackend, body: object) -> None:
    """400 from the admin API."""
    assert (await backend.send("PUT", "/_sim/owners", body=body)).status == 400


async def test_customer_can_be_created_once(backend: WalletBackend) -> None:
    """409 for the same chainId and externalId, in any spelling of the address; the body has no id."""
    await backend.create_customer(OWNER_ID, "one")
    again = {"chainId": OWNER_ID.lower(), "externalId": "one"}
    reply = await backend.call("POST", "/v1/customers", again)
    assert (reply.status, reply.code) == (409, "customer_exists")
    assert reply.json.keys() == {"code", "message"}
    assert (await backend.create_customer(OWNER_ID, "two"))["externalId"] == "two"


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        {},
        {"chainId": OWNER_ID},
        {"externalId": "x"},
        {"chainId": OWNER_ID, "externalId": ""},
        {"chainId": OWNER_ID, "externalId": 1},
        {"chainId": OWNER.address, "externalId": "x"},
        {"chainId": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:abc", "externalId": "x"},
        {"chainId": "eip155:0324:" + OWNER.address, "externalId": "x"},
        {"chainId": "eip155:324:" + OWNER.address.replace("e", "E", 1), "externalId": "x"},
        {"chainId": OWNER_ID, "externalId": "x", "ownerId": "nobody"},
    ],
)
async def test_invalid_customer_is_refused(backend: WalletBackend, body: object) -> None:
    """400 for malformed fields; a wrong EIP-55 checksum is one."""
    reply = await backend.call("POST", "/v1/customers", body)
    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_customer_can_be_read(backend: WalletBackend) -> None:
    """200 with the customer and without its challenge."""
    created = await backend.create_customer()
    reply = await backend.call("GET", f"/v1/customers/{created['id']}")
    assert reply.status == 200
    assert reply.json == {name: value for name, value in created.items() if name != "challenge"}


@pytest.mark.parametrize("path", [NOWHERE, f"{NOWHERE}/challenge"])
async def test_unknown_customer_is_not_found(backend: WalletBackend, path: str) -> None:
    """404."""
    reply = await backend.call("GET", path)
    assert (reply.status, reply.code) == (404, "customer_not_found")


@pytest.mark.parametrize("path", ["/v1/customers/1", "/v1/customers/not-a-uuid/challenge"])
async def test_customer_id_must_be_a_uuid(backend: WalletBackend, path: str) -> None:
    """400."""
    reply = await backend.call("GET", path)
    assert (reply.status, reply.code) == (400, "invalid_customer_id")


async def test_challenge_is_replaced_after_an_hour(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """Until then GET returns the first one, then a new one for the same owner."""
    customer = await backend.create_customer()
    assert await backend.challenge(customer["id"]) == customer["challenge"]
    simulator.state.clock.offset = 3540
    assert await backend.challenge(customer["id"]) == customer["challenge"]
    await backend.send("POST", f"/_sim/expire/{customer['id']}")
    renewed = await backend.challenge(customer["id"])
    assert renewed != customer["challenge"]
    assert text_of(renewed).split("\n")[1] == OWNER.address
    assert await backend.challenge(customer["id"]) == renewed


async def test_signed_challenge_is_not_replaced(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """GET returns the challenge that was signed, however old it is."""
    customer = await backend.create_customer()
    assert (await backend.deliver(customer["id"], delivery(customer["challenge"]))).status == 204
    await backend.send("POST", f"/_sim/expire/{customer['id']}")
    assert await backend.challenge(customer["id"]) == customer["challenge"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/cards", 404), ("DELETE", "/v1/customers", 405)])
async def test_unknown_path_or_method_has_json_error(
    backend: WalletBackend, method: str, path: str, status: int
) -> None:
    """In the form of the other errors."""
    reply = await backend.send(method, path)
    assert reply.status == status
    assert reply.json.keys() == {"code", "message"}


async def test_too_long_body_is_refused(backend: WalletBackend) -> None:
    """413 above 64 kB."""
    reply = await backend.call("POST", "/v1/customers", b"x" * 70_000)
    assert (reply.status, reply.code) == (413, "request_entity_too_large")
