"""The card API is down or its clock is wrong: responses to callers, readiness, and the log."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from aiohttp import ClientResponse

from signer.application.backoff import Backoff
from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import Site, check_waiting
from tests.support.quick_breaker import BREAKER_DEFAULTS

DOWN = Fault(FaultKind.STATUS, "*", status=503)
MANY = 100
LONG_COOL_DOWN = Backoff(first_pause=timedelta(seconds=30), longest_pause=timedelta(seconds=30))


async def sign_all(site: Site, customers: list[tuple[str, str]], *, with_challenge: bool) -> list[ClientResponse]:
    """Send all requests at once. ``http.answer_within`` is a minute: no request may wait so long."""
    requests = (site.ask(customer_id, challenge if with_challenge else None) for customer_id, challenge in customers)
    async with asyncio.timeout(40):
        return await asyncio.gather(*requests)


@pytest.mark.parametrize("has_token", [True, False])
async def test_outage_gets_quick_responses_and_few_requests_to_the_card_api(
    start: StartSite, monkeypatch: pytest.MonkeyPatch, has_token: bool
) -> None:
    """Requests with a challenge get 202; those without get 503 and ``Retry-After``."""
    monkeypatch.setitem(BREAKER_DEFAULTS, "cool_down", LONG_COOL_DOWN)
    site = await start()
    if has_token:
        assert (await site.readiness())["ok"]
    site.fault(DOWN)
    site.simulator.state.ledger.clear()
    customers = [site.customer() for _ in range(MANY)]
    for response in await sign_all(site, customers, with_challenge=False):
        assert (response.status, (await response.json())["code"]) == (503, "card_api_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
    assert not site.log.of("challenge.claimed")
    for response in await sign_all(site, customers, with_challenge=True):
        await check_waiting(response)
    assert site.total_calls() < MANY


async def test_signatures_are_delivered_once_after_an_outage(site: Site) -> None:
    """The circuit breaker closes and each signature is verified once; the log shows both changes of the breaker."""
    assert (await site.readiness()) == {"name": "card_api", "ok": True}
    site.fault(DOWN)
    customers = [site.customer() for _ in range(MANY)]
    records = [await check_waiting(response) for response in await sign_all(site, customers, with_challenge=True)]
    opened = await site.logged("card_api.breaker_opened")
    assert (opened["opening"], opened["cause"]) == (1, "server_error")
    assert opened["reason"].startswith("The card API is unavailable (status 503 on ")
    site.calm()
    for record in records:
        assert (await site.settled(record["id"]))["state"] == "verified"
    assert (await site.logged("card_api.breaker_closed"))["openings"] >= 1
    verified = [entry.customer_id for entry in site.simulator.state.ledger.entries() if entry.verified]
    assert sorted(verified) == sorted(customer_id for customer_id, _ in customers)


async def test_replica_whose_key_id_is_wrong_is_not_ready(start: StartSite) -> None:
    """The card API refuses every request: readiness says so before a caller learns it."""
    site = await start(card_api={"signing_key_id": "a-key-that-was-replaced"})
    check = await site.readiness()
    assert (check["ok"], check["code"]) == (False, "card_api_credentials_refused")
    assert "signing_key_id" in check["detail"]
    assert [check["ok"] for check in [await site.readiness(name) for name in ("admission", "audit", "redis")]] == [
        True
    ] * 3


async def test_replica_is_ready_while_the_circuit_breaker_is_open(
    start: StartSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its access token and can sign; the detail says why, and that requests to the card API are paused."""
    monkeypatch.setitem(BREAKER_DEFAULTS, "cool_down", LONG_COOL_DOWN)
    monkeypatch.setitem(BREAKER_DEFAULTS, "failures_to_open", 1)
    site = await start()
    assert (await site.readiness())["ok"]
    site.fault(DOWN)
    assert (await site.ask(*site.customer())).status == 202
    async with asyncio.timeout(20):
        while True:
            check = await site.readiness()
            if "detail" in check:
                break
            await asyncio.sleep(0.05)  # a report is good for a second
    assert check["ok"]
    assert check["detail"].startswith(
        "server_error: The card API is unavailable (status 503 on POST challenge/sign); ask its operator. "
    )
    assert "Paused after repeated card API failures; retry after " in check["detail"]


async def test_signatures_are_accepted_if_the_card_apis_clock_is_behind(site: Site) -> None:
    """With 20 s, ``created`` is 20 s earlier, a warning is logged, and readiness shows the difference."""
    site.simulator.state.clock.offset = -20.0
    record = await (await site.ask(*site.customer())).json()
    assert record["state"] == "verified"
    assert site.simulator.state.ledger.outcomes("sign") == {"204": 1}
    check = await site.readiness()
    assert check["ok"]
    assert check["detail"] in {f"its clock is {seconds} s behind ours" for seconds in (19, 20, 21)}  # ``Date`` is cut
    assert (await site.logged("clock.skewed"))["skew_seconds"] == pytest.approx(-20, abs=1)
    site.calm()
    async with asyncio.timeout(20):
        while not site.log.of("clock.agreed"):
            assert (await (await site.ask(*site.customer())).json())["state"] == "verified"
    assert len(site.log.of("clock.skewed")) == 1
    assert site.log.of("clock.agreed")[0]["duration_ms"] > 0


@pytest.mark.usefixtures("usual_watch")
@pytest.mark.parametrize("has_token", [True, False])
async def test_end_of_an_outage_is_noticed_without_requests_when_the_cool_down_is_over(
    start: StartSite, monkeypatch: pytest.MonkeyPatch, has_token: bool
) -> None:
    """By the call of readiness, within seconds, in the log and in readiness."""
    cool_down = timedelta(seconds=3)
    monkeypatch.setitem(BREAKER_DEFAULTS, "cool_down", Backoff(first_pause=cool_down, longest_pause=cool_down))
    monkeypatch.setitem(BREAKER_DEFAULTS, "failures_to_open", 1)
    site = await start()
    assert (await site.readiness())["ok"]
    site.fault(DOWN)
    if not has_token:
        site.simulator.state.revoke_tokens()
    customer_id, _ = site.customer()
    assert (await site.ask(customer_id)).status == 503
    await site.logged("card_api.down")
    site.calm()
    repaired = time.monotonic()
    up = await site.logged("card_api.up")
    assert up["cause"] == "server_error"
    while (check := await site.readiness()) != {"name": "card_api", "ok": True}:
        assert "server_error" in check["detail"]
        assert time.monotonic() < repaired + 30
        await asyncio.sleep(0.1)  # a report is good for a second
    assert [line["event"] for line in site.log.of("card_api.down")] == ["card_api.down"]
    assert await site.logged("card_api.breaker_closed")
