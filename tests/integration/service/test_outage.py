"""The card API is down, or its clock is wrong: what callers get, what readiness says, what the log tells."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientResponse

from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import Site, check_waiting

DOWN = Fault(FaultKind.STATUS, "*", status=503)
MANY = 100


async def answers(site: Site, customers: list[tuple[str, str]], *, named: bool) -> list[ClientResponse]:
    """Ask for all of them at once. A caller waits for a minute if he has to; nobody has to."""
    asked = (site.ask(customer_id, challenge if named else None) for customer_id, challenge in customers)
    async with asyncio.timeout(40):
        return await asyncio.gather(*asked)


@pytest.mark.parametrize("has_token", [True, False])
async def test_while_the_api_is_down_all_are_answered_and_few_ask_it(start: StartSite, has_token: bool) -> None:
    """202 where there is a signature, 503 with ``Retry-After`` where there is none; all is delivered afterwards."""
    site = await start(card_api={"breaker_cool_down": 30})
    if has_token:
        assert (await site.readiness())["ok"]
    site.fault(DOWN)
    site.simulator.state.ledger.clear()
    customers = [site.customer() for _ in range(MANY)]
    for answer in await answers(site, customers, named=False):
        assert (answer.status, (await answer.json())["code"]) == (503, "card_api_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert not site.log.of("challenge.claimed")
    for answer in await answers(site, customers, named=True):
        await check_waiting(answer)
    assert site.total_calls() < MANY


async def test_what_waited_for_the_api_is_delivered_once_it_is_back(site: Site) -> None:
    """One request finds out, then all signatures go out, each once; the log tells of the beginning and the end."""
    assert (await site.readiness()) == {"name": "card_api", "ok": True}
    site.fault(DOWN)
    customers = [site.customer() for _ in range(MANY)]
    records = [await check_waiting(answer) for answer in await answers(site, customers, named=True)]
    opened = await site.logged("card_api.breaker_opened")
    assert opened["opening"] == 1
    site.calm()
    for record in records:
        assert (await site.settled(record["id"]))["state"] == "verified"
    assert (await site.logged("card_api.breaker_closed"))["openings"] >= 1
    verified = [entry.customer_id for entry in site.simulator.state.ledger.entries() if entry.verified]
    assert sorted(verified) == sorted(customer_id for customer_id, _ in customers)


async def test_readiness_says_that_the_api_is_left_alone(start: StartSite) -> None:
    """The replica has its token and signs: it is ready, and says what it does not do for now."""
    site = await start(card_api={"breaker_cool_down": 30, "breaker_failures": 1})
    assert (await site.readiness())["ok"]
    site.fault(DOWN)
    assert (await site.ask(*site.customer())).status == 202
    async with asyncio.timeout(20):
        while True:
            said = await site.readiness()
            if "detail" in said:
                break
            await asyncio.sleep(0.05)  # a report is good for a second
    assert said["ok"]
    assert said["detail"].startswith("not asked for another ")


async def test_an_api_whose_clock_is_behind_gets_its_signatures(site: Site) -> None:
    """20 s: ``created`` is put back by as much, a warning is written, readiness shows it and holds."""
    site.simulator.state.clock.offset = -20.0
    record = await (await site.ask(*site.customer())).json()
    assert record["state"] == "verified"
    assert site.simulator.state.ledger.outcomes("sign") == {"204": 1}
    said = await site.readiness()
    assert said["ok"]
    assert said["detail"] in {f"its clock is {seconds} s behind ours" for seconds in (19, 20, 21)}  # ``Date`` is cut
    assert (await site.logged("clock.skewed"))["skew_seconds"] == pytest.approx(-20, abs=1)
    site.calm()
    async with asyncio.timeout(20):
        while not site.log.of("clock.agreed"):
            assert (await (await site.ask(*site.customer())).json())["state"] == "verified"
    assert len(site.log.of("clock.skewed")) == 1
