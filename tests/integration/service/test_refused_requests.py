"""What the card API's gates and a proxy in front of it do to our requests, and not to what is in them."""

from __future__ import annotations

import pytest

from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import Site, check_waiting

REFUSALS = [
    *(Fault(FaultKind.STATUS, "sign", status=status) for status in (401, 403)),
    Fault(FaultKind.REFUSE_SIGNATURE, "sign"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["401", "403", "request signature"])
async def test_delivery_succeeds_when_the_gate_opens_again(start: StartSite, refusal: Fault) -> None:
    """Nothing is remembered under the Idempotency-Key: the first delivery that passes the gate is verified."""
    site = await start(http={"answer_within": 0.6})
    site.fault(refusal)
    customer_id, challenge = site.customer()
    record = await check_waiting(await site.ask_patiently(customer_id, challenge))
    deferred = await site.logged("challenge.deferred")
    assert (deferred["code"], deferred["level"]) == ("credentials_refused", "warning")
    site.calm()
    settled = await site.settled(record["id"])
    assert settled["state"] == "verified"
    entries = site.simulator.state.ledger.entries(customer_id)
    assert [entry.admitted for entry in entries] == [False] * (len(entries) - 1) + [True]
    assert len({entry.idempotency_key for entry in entries}) == 1


@pytest.mark.parametrize("route", ["token", "challenge", "sign"])
async def test_one_wrong_date_fails_no_request(site: Site, route: str) -> None:
    """A proxy's clock is two hours ahead in one response; tokens live an hour. Readiness stays 200."""
    assert (await site.readiness())["ok"]
    site.simulator.state.revoke_tokens()
    site.fault(Fault(FaultKind.WRONG_DATE, route, times=1, seconds=7200))
    for _ in range(3):
        response = await site.ask(site.customer()[0])
        assert (response.status, (await response.json())["state"]) == (200, "verified")
        assert (await site.client.get("/readyz")).status == 200
    assert site.simulator.state.faults.struck[FaultKind.WRONG_DATE] == 1
    assert site.simulator.state.ledger.outcomes("sign") == {"204": 3}
