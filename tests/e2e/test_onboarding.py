"""``POST /v1/customers`` creates a customer and verifies its account in one call, and creates nothing twice."""

from __future__ import annotations

import asyncio
from typing import Any

from signer.devsite.site import LocalSite
from tests.e2e.conftest import OpenSite, on_shared_site, repeat_while_in_progress

QUICK = {"card_api": "request_timeout = 2", "redis": "lease = 6", "http": "answer_within = 2"}
OTHER_ACCOUNT = "eip155:324:0x22227A31dd842196A246d8f3b775998560eAa61d"


async def onboard(site: LocalSite, external_id: str, **fields: object) -> tuple[int, dict[str, Any]]:
    """POST a customer to the service, and return the status and the body."""
    body = {"chainId": str(site.owner), "externalId": external_id, "ownerId": str(site.owner), **fields}
    async with site.http.post(f"{site.base_url}/v1/customers", json=body, headers=site.authorization) as response:
        return response.status, await response.json()


async def outcomes(site: LocalSite, route: str = "create_customer") -> dict[str, int]:
    """Return how often the card API responded on a route, by status; ``dropped`` are the responses that were lost."""
    async with site.http.get(f"{site.card_api}/_sim/ledger") as response:
        found: dict[str, int] = (await response.json())["counters"].get(route, {})
    return found


@on_shared_site
async def test_customer_is_created_and_verified_in_one_call(site: LocalSite) -> None:
    """The response is 201 with customer and record; repeated requests get the same one and create nothing."""
    status, customer = await onboard(site, "alice")
    assert (status, customer["record"]["state"]) == (201, "verified")
    assert customer["customerId"] == customer["record"]["customerId"]
    again = await asyncio.gather(*(onboard(site, "alice") for _ in range(5)))
    assert all(result == (201, customer) for result in again)
    assert await outcomes(site) == {"201": 1}
    assert len((await site.ledger(customer["customerId"]))["entries"]) == 1
    assert (await site.sign(customer["customerId"]))[1] == customer["record"]


@on_shared_site
async def test_onboarding_fetches_no_challenge(site: LocalSite) -> None:
    """The challenge in the response to the creation is signed."""
    assert (await onboard(site, "grace"))[0] == 201
    assert (await outcomes(site), await outcomes(site, "challenge")) == ({"201": 1}, {})


@on_shared_site
async def test_creation_is_retried_after_a_lost_response(site: LocalSite) -> None:
    """The retry has the same Idempotency-Key, so the card API returns the customer that it created, and no 409."""
    await site.set_faults({"kind": "drop_reply", "route": "create_customer", "times": 1})
    status, customer = await onboard(site, "bob")
    assert (status, customer["record"]["state"]) == (201, "verified")
    assert await outcomes(site) == {"dropped": 1, "201": 1}


async def test_creation_is_completed_after_sigkill_before_the_response(open_site: OpenSite) -> None:
    """Intent and Idempotency-Key are stored before the POST, so another process gets the same customer, and no 409."""
    site = await open_site()
    await site.set_faults({"kind": "drop_reply", "route": "create_customer"})
    request = asyncio.create_task(onboard(site, "carol"))
    async with asyncio.timeout(10):
        while "dropped" not in await outcomes(site):  # noqa: ASYNC110 - a poll is enough
            await asyncio.sleep(0.02)
    await site.replicas[0].process.kill()
    await asyncio.gather(request, return_exceptions=True)
    await site.set_faults()
    await site.start_replica()
    status, customer = await onboard(site, "carol")
    assert (status, customer["record"]["state"]) == (201, "verified")
    found = await outcomes(site)
    assert found == {"dropped": found["dropped"], "201": 1}


@on_shared_site
async def test_problem_after_the_creation_has_the_customer_id(site: LocalSite) -> None:
    """The challenge is unusable; the same request completes the customer later."""
    await site.set_faults({"kind": "challenge_pem"})
    status, problem = await onboard(site, "dave")
    assert (status, problem["code"], problem["reason"]) == (502, "card_api_challenge_refused", "challenge_not_siwe")
    await site.set_faults()
    status, customer = await onboard(site, "dave")
    assert (status, customer["customerId"]) == (201, problem["customerId"])


async def test_created_customer_with_undelivered_signature_is_202(open_site: OpenSite) -> None:
    """The response has the customer and its record."""
    site = await open_site(**QUICK)
    await site.set_faults({"kind": "status", "route": "sign", "status": 503})
    status, customer = await repeat_while_in_progress(lambda: onboard(site, "erin"))
    assert status == 202
    assert customer["record"]["state"] in {"signed", "forwarding"}


@on_shared_site
async def test_invalid_customer_is_refused_and_not_created(site: LocalSite) -> None:
    """Nothing is sent to the card API."""
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"ownerId": OTHER_ACCOUNT}, 404, "owner_unknown"),
        ({"externalId": ""}, 400, "request_malformed"),
        ({"externalId": 7}, 400, "request_malformed"),
        ({"chainId": "eip155:324"}, 400, "owner_id_malformed"),
        ({"statement": "x"}, 400, "request_malformed"),
    ]
    for fields, status, code in cases:
        response_status, problem = await onboard(site, "frank", **fields)
        assert (response_status, problem["code"]) == (status, code)
    assert await outcomes(site) == {}


@on_shared_site
async def test_customer_of_a_creation_that_got_500_after_the_commit_is_found(site: LocalSite) -> None:
    """The repeated creation gets 409, and the customer is in the card API's list."""
    await site.set_faults({"kind": "status_after_commit", "route": "create_customer", "times": 1})
    status, customer = await onboard(site, "heidi")
    assert (status, customer["record"]["state"]) == (201, "verified")
    assert await onboard(site, "heidi") == (201, customer)
    assert await outcomes(site) == {"500": 1, "409": 1}


@on_shared_site
async def test_onboarding_finds_a_customer_that_exists_at_the_card_api(site: LocalSite) -> None:
    """This service never created it."""
    existing = await site.create_customer()
    status, customer = await onboard(site, existing["externalId"])
    assert (status, customer["customerId"], customer["record"]["state"]) == (201, existing["id"], "verified")
