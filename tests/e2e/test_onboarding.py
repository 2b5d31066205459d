"""``POST /v1/customers``: one call creates the customer and proves its account, and nothing is created twice."""

from __future__ import annotations

import asyncio
from typing import Any

from signer.devsite.site import LocalSite
from tests.e2e.conftest import OpenSite

QUICK = {"card_api": "request_timeout = 2", "redis": "lease = 6", "http": "answer_within = 2"}
OTHER_ACCOUNT = "eip155:324:0x22227A31dd842196A246d8f3b775998560eAa61d"


async def onboard(site: LocalSite, external_id: str, **fields: object) -> tuple[int, dict[str, Any]]:
    """Ask the service to onboard a customer."""
    body = {"chainId": str(site.owner), "externalId": external_id, "ownerId": str(site.owner), **fields}
    async with site.http.post(f"{site.base_url}/v1/customers", json=body, headers=site.authorization) as answer:
        return answer.status, await answer.json()


async def created(site: LocalSite) -> int:
    """Ask the card API how many customers it has created."""
    async with site.http.get(f"{site.card_api}/_sim/ledger") as answer:
        counters = (await answer.json())["counters"]
    return int(counters.get("create_customer", {}).get("201", 0))


async def test_a_customer_is_created_and_proven_in_one_call(open_site: OpenSite) -> None:
    """201 with the customer and the record; the same request again gives the same customer, and creates none."""
    site = await open_site()
    status, customer = await onboard(site, "alice")
    assert (status, customer["record"]["state"]) == (201, "verified")
    assert customer["customerId"] == customer["record"]["customerId"]
    again = await asyncio.gather(*(onboard(site, "alice") for _ in range(5)))
    assert all(answer == (201, customer) for answer in again)
    assert await created(site) == 1
    assert len((await site.ledger(customer["customerId"]))["entries"]) == 1
    assert (await site.sign(customer["customerId"]))[1] == customer["record"]


async def test_a_lost_answer_creates_nothing_twice(open_site: OpenSite) -> None:
    """The API created the customer and its answer was lost: the same key is sent again, and the id comes back."""
    site = await open_site(**QUICK)
    await site.set_faults({"kind": "drop_reply", "route": "create_customer", "times": 1})
    status, customer = await onboard(site, "bob")
    assert (status, customer["record"]["state"]) == (201, "verified")


async def test_a_crash_between_the_creation_and_its_answer_loses_no_id(open_site: OpenSite) -> None:
    """The intent and its key are stored before the POST: another process finds the customer under the same key."""
    site = await open_site(**QUICK)
    await site.set_faults({"kind": "drop_reply", "route": "create_customer"})
    request = asyncio.create_task(onboard(site, "carol"))
    async with asyncio.timeout(10):
        while True:
            if await dropped(site):
                break
            await asyncio.sleep(0.02)
    await site.replicas[0].process.kill()
    await asyncio.gather(request, return_exceptions=True)
    await site.set_faults()
    await site.start_replica()
    status, customer = await onboard(site, "carol")
    assert (status, customer["record"]["state"]) == (201, "verified")


async def dropped(site: LocalSite) -> int:
    """Ask the card API how many of its answers to a creation were dropped."""
    async with site.http.get(f"{site.card_api}/_sim/ledger") as answer:
        counters = (await answer.json())["counters"]
    return int(counters.get("create_customer", {}).get("dropped", 0))


async def test_a_failure_after_the_creation_still_gives_the_id(open_site: OpenSite) -> None:
    """The challenge cannot be fetched: the problem carries ``customerId``, and the same request goes on later."""
    site = await open_site(**QUICK)
    await site.set_faults({"kind": "challenge_pem", "route": "challenge"})
    status, problem = await onboard(site, "dave")
    assert (status, problem["code"]) == (400, "challenge_not_siwe")
    await site.set_faults()
    status, customer = await onboard(site, "dave")
    assert (status, customer["customerId"]) == (201, problem["customerId"])


async def test_while_signatures_cannot_be_delivered_the_answer_is_202(open_site: OpenSite) -> None:
    """Created and under way: 202 with the customer, and a place to look."""
    site = await open_site(**QUICK)
    await site.set_faults({"kind": "status", "route": "sign", "status": 503})
    status, customer = await onboard(site, "erin")
    assert status == 202
    assert customer["record"]["state"] in {"signed", "forwarding"}


async def test_what_cannot_be_onboarded_is_refused_and_creates_nothing(open_site: OpenSite) -> None:
    """Typed errors, before anything is sent."""
    site = await open_site()
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"ownerId": OTHER_ACCOUNT}, 404, "owner_unknown"),
        ({"externalId": ""}, 400, "request_malformed"),
        ({"externalId": 7}, 400, "request_malformed"),
        ({"chainId": "eip155:324"}, 400, "owner_id_malformed"),
        ({"statement": "x"}, 400, "request_malformed"),
    ]
    for fields, status, code in cases:
        answer = await onboard(site, "frank", **fields)
        assert (answer[0], answer[1]["code"]) == (status, code)
    assert await created(site) == 0


async def test_a_customer_whose_id_nobody_knows_is_said_to_exist(open_site: OpenSite) -> None:
    """The wallet created the customer itself, and we never saw its id: ``customer_exists``."""
    site = await open_site()
    customer = await site.create_customer()
    status, problem = await onboard(site, customer["externalId"])
    assert (status, problem["code"]) == (409, "customer_exists")
