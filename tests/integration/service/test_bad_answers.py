"""What the card API's bad answers come to for a wallet backend: cut, oversized, senseless, redirected, wrong."""

from __future__ import annotations

from typing import Any

import pytest

from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import Site

K = FaultKind
CUT = [Fault(K.CUT_REPLY, "sign"), Fault(K.DROP_REPLY, "sign")]
SENSELESS = [Fault(kind, "sign") for kind in (K.OVERSIZED, K.GARBAGE, K.WRONG_CONTENT_TYPE)]
REDIRECTS = [Fault(K.REDIRECT, "sign", status=status) for status in (301, 302, 303, 307, 308)]
BAD = [*CUT, *SENSELESS, *REDIRECTS]


def name(fault: Fault) -> str:
    """Name a case."""
    return f"{fault.kind} {fault.status or ''}".strip()


def on(route: str, fault: Fault, **details: Any) -> Fault:  # noqa: ANN401 - a fault's own fields
    """Have the same go wrong elsewhere."""
    return Fault(fault.kind, route, status=fault.status, **details)


HASTY: dict[str, dict[str, object]] = {"http": {"answer_within": 0.3}}
"""Callers who do not wait for long."""
bad = pytest.mark.parametrize("fault", BAD, ids=name)


async def check_delivered(site: Site, customer_id: str, record: dict[str, Any]) -> None:
    """See that the customer is proven, by one signature under one Idempotency-Key, and that no redirect was followed."""
    entries = site.simulator.state.ledger.entries(customer_id)
    assert [entry.verified for entry in entries].count(True) == 1
    assert len({(entry.idempotency_key, entry.signature_sha256) for entry in entries}) == 1
    assert record["attempts"] >= len(entries)
    assert site.calls("elsewhere") == 0


@bad
async def test_one_bad_answer_to_a_delivery_is_not_seen(site: Site, fault: Fault) -> None:
    """The same is sent again under its key, and the caller gets the end: 200, verified, or signed before by that."""
    customer_id, challenge = site.customer()
    site.fault(on("sign", fault, times=1))
    answer = await site.ask(customer_id, challenge)
    record = await answer.json()
    assert (answer.status, record["state"], record["attempts"]) == (200, "verified", 2)
    await check_delivered(site, customer_id, record)


@bad
async def test_bad_answers_to_every_delivery_leave_it_to_later(start: StartSite, fault: Fault) -> None:
    """The caller gets 202 and the signature; it is delivered once the API is well."""
    site = await start(**HASTY)
    site.fault(fault)
    customer_id, challenge = site.customer()
    answer = await site.ask(customer_id, challenge, forward=True)
    record = await answer.json()
    assert (answer.status, record["state"]) == (202, "signed")
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


@pytest.mark.parametrize("fault", CUT, ids=name)
async def test_a_challenge_cut_once_is_fetched_again(site: Site, fault: Fault) -> None:
    """Reading is repeated: 200, verified."""
    customer_id, _ = site.customer()
    site.fault(on("challenge", fault, times=2))
    answer = await site.ask(customer_id)
    record = await answer.json()
    assert (answer.status, record["state"]) == (200, "verified")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        *((fault, 503, "card_api_unavailable") for fault in CUT),
        *((fault, 502, "card_api_invalid_answer") for fault in [*SENSELESS, *REDIRECTS]),
        (Fault(K.CHALLENGE_PEM), 400, "challenge_not_siwe"),
        (Fault(K.CHALLENGE_OTHER_OWNER), 422, "owner_mismatch"),
        (Fault(K.CHALLENGE_OTHER_DOMAIN), 422, "domain_not_allowed"),
    ],
    ids=lambda value: name(value) if isinstance(value, Fault) else str(value),
)
async def test_without_a_good_challenge_nothing_is_signed(site: Site, fault: Fault, status: int, code: str) -> None:
    """The caller is told what is wrong; no nonce is claimed, nothing delivered, no redirect followed."""
    customer_id, _ = site.customer()
    site.fault(on("challenge", fault))
    answer = await site.ask(customer_id)
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (status, code)
    assert ("Retry-After" in answer.headers) == (status >= 500)
    assert not site.log.of("challenge.claimed")
    assert site.calls("sign") + site.calls("elsewhere") == 0
    site.calm()
    assert (await (await site.ask(customer_id)).json())["state"] == "verified"


@bad
async def test_without_a_token_a_signature_waits(start: StartSite, fault: Fault) -> None:
    """No credentials go elsewhere, the caller is not kept waiting for ever, and the delivery follows by itself."""
    site = await start(**HASTY)
    site.fault(on("token", fault))
    customer_id, challenge = site.customer()
    answer = await site.ask(customer_id, challenge)
    record = await answer.json()
    assert (answer.status, record["state"]) == (202, "signed")
    assert site.calls("sign") == 0
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))
