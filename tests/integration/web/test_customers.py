"""``POST /v1/customers`` over HTTP, with the real use case over fakes of its ports."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientResponse

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, NotFound, Unavailable
from tests.integration.web.site import CUSTOMER, PROBLEM, Site
from tests.support.messages import OWNER


@pytest.fixture
def wallet(site: Site) -> Site:
    """A card API that will create the customer ``alice`` with a challenge for the owner."""
    site.card_api.customer_ids["alice"] = CUSTOMER
    site.card_api.first_challenge = site.challenge()
    return site


async def onboard(site: Site, **fields: object) -> tuple[ClientResponse, dict[str, Any]]:
    """POST the customer ``alice``, and return the response and its body."""
    body = {"chainId": site.owner, "externalId": "alice", "ownerId": site.owner} | fields
    response = await site.client.post("/v1/customers", json=body, headers=site.authorization)
    return response, await response.json()


async def test_existing_customer_that_is_not_found_is_503_with_retry_after(wallet: Site) -> None:
    """The problem says what to do; the same request is 201 once the card API's list has the customer."""
    wallet.card_api.already_exists = 2
    wallet.card_api.failures.append(NotFound(ErrorCode.CUSTOMER_UNKNOWN, "The list does not have it."))
    response, problem = await onboard(wallet)
    assert (response.status, response.content_type, problem["code"]) == (503, PROBLEM, "customer_lookup_failed")
    assert response.headers["Retry-After"] == "5"
    assert "The list does not have it. Send the same request again." in problem["detail"]
    [line] = wallet.log.of("customer.lookup_failed")
    assert (line["level"], line["code"], line["owner"]) == ("warning", "customer_unknown", wallet.owner)
    assert "customer_id" not in line
    response, customer = await onboard(wallet)
    assert (response.status, customer["customerId"], customer["record"]["state"]) == (201, CUSTOMER, "verified")
    assert [line["customer_id"] for line in wallet.log.of("customer.found")] == [CUSTOMER]


async def test_wrong_challenge_of_the_card_api_is_502_with_the_customer_and_a_warning(wallet: Site) -> None:
    """The caller has not sent the challenge: ``reason`` has the rule, and the same request succeeds later."""
    wallet.card_api.first_challenge = wallet.challenge(domain="api.evil.example", uri="https://api.evil.example")
    response, problem = await onboard(wallet)
    assert (response.status, problem["code"]) == (502, "card_api_challenge_refused")
    assert (problem["reason"], problem["customerId"]) == ("domain_not_allowed", CUSTOMER)
    assert response.headers["Retry-After"] == "5"
    assert "field" not in problem
    [line] = wallet.log.of("card_api.challenge_refused")
    assert (line["level"], line["code"], line["customer_id"]) == ("warning", "domain_not_allowed", CUSTOMER)
    wallet.card_api.issue(CUSTOMER, wallet.challenge())
    assert (await onboard(wallet))[0].status == 201


async def test_challenge_for_another_owner_is_422_with_the_customer_and_no_warning(wallet: Site) -> None:
    """The customer exists by then, so the problem has its id; a retry cannot help, so there is no ``Retry-After``."""
    wallet.card_api.first_challenge = wallet.challenge(address=OWNER)
    response, problem = await onboard(wallet)
    assert (response.status, problem["code"], problem["field"]) == (422, "owner_mismatch", "ownerId")
    assert problem["customerId"] == CUSTOMER
    assert "Retry-After" not in response.headers
    assert "reason" not in problem
    assert not wallet.log.of("card_api.challenge_refused")
    assert [line["code"] for line in wallet.log.of("challenge.refused")] == ["owner_mismatch"]


@pytest.mark.parametrize(
    ("account_chain", "owner_chain", "status", "code"),
    [("300", "300", 422, "chain_not_allowed"), ("324", "300", 422, "chain_mismatch")],
)
async def test_chain_that_cannot_be_signed_for_is_refused_before_the_customer_is_created(
    wallet: Site, account_chain: str, owner_chain: str, status: int, code: str
) -> None:
    """No orphan is left at the card API."""
    chains = {"chainId": account_chain, "ownerId": owner_chain}
    accounts = {field: f"eip155:{chain}:{wallet.key.address}" for field, chain in chains.items()}
    response, problem = await onboard(wallet, **accounts)
    assert (response.status, problem["code"], problem["field"]) == (status, code, "ownerId")
    assert wallet.card_api.created == []


async def test_key_that_cannot_sign_is_503_before_the_customer_is_created(wallet: Site) -> None:
    """The key is loaded and its backend is down."""
    wallet.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The token is gone.", retry_after=2)
    response, problem = await onboard(wallet)
    assert (response.status, problem["code"], response.headers["Retry-After"]) == (503, "key_backend_unavailable", "2")
    assert wallet.card_api.created == []


async def test_customer_whose_challenge_ended_without_proof_is_409_with_its_record(wallet: Site) -> None:
    """It is no 201; the next challenge can be signed by either route."""
    wallet.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422))
    response, problem = await onboard(wallet)
    assert (response.status, response.content_type, problem["code"]) == (409, PROBLEM, "customer_not_proven")
    assert (problem["customerId"], problem["record"]["state"]) == (CUSTOMER, "rejected")
    assert "POST /v1/customers/{customerId}/challenge/sign" in problem["detail"]
    [line] = wallet.log.of("http.request")
    assert (line["status"], line["code"], line["state"]) == (409, "customer_not_proven", "rejected")
    assert line["challenge_id"] == problem["record"]["id"]
    assert (await wallet.get(f"/v1/challenges/{problem['record']['id']}")).status == 200
    wallet.card_api.issue(CUSTOMER, wallet.challenge(nonce="lastnonce1"))
    response, customer = await onboard(wallet)
    assert (response.status, customer["record"]["state"]) == (201, "verified")
