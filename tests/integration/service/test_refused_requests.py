"""The card API refuses our requests, and not what is in them: its gates leave every challenge as it is."""

from __future__ import annotations

import pytest

from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import check_waiting

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
    record = await check_waiting(await site.ask(customer_id, challenge))
    deferred = await site.logged("challenge.deferred")
    assert (deferred["code"], deferred["level"]) == ("credentials_refused", "warning")
    site.calm()
    settled = await site.settled(record["id"])
    assert settled["state"] == "verified"
    entries = site.simulator.state.ledger.entries(customer_id)
    assert [entry.admitted for entry in entries] == [False] * (len(entries) - 1) + [True]
    assert len({entry.idempotency_key for entry in entries}) == 1
