"""What the card API's bad answers come to for a wallet backend: cut, oversized, senseless, redirected, wrong."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import Site, check_waiting

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


HASTY: dict[str, dict[str, object]] = {"http": {"answer_within": 0.6}}
"""Callers who do not wait for long."""
bad = pytest.mark.parametrize("fault", BAD, ids=name)


async def check_delivered(site: Site, customer_id: str, record: dict[str, Any]) -> None:
    """See that one signature proved the customer, under one Idempotency-Key, and that no redirect was followed."""
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


@pytest.mark.parametrize("fault", [*CUT, *REDIRECTS], ids=name)
async def test_bad_answers_to_every_delivery_leave_it_to_later(start: StartSite, fault: Fault) -> None:
    """The caller gets 202 and the signature; it is delivered once the API is well."""
    site = await start(**HASTY)
    site.fault(fault)
    customer_id, challenge = site.customer()
    record = await check_waiting(await site.ask(customer_id, challenge))
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


@pytest.mark.parametrize("fault", SENSELESS, ids=name)
async def test_an_api_that_never_says_it_well_is_asked_for_the_customer(site: Site, fault: Fault) -> None:
    """It verified the signature and cannot say so: the third time, the customer's status says it."""
    site.fault(fault)
    customer_id, challenge = site.customer()
    answer = await site.ask(customer_id, challenge)
    record = await answer.json()
    assert (answer.status, record["state"]) == (200, "verified")
    assert (record["code"], record["attempts"]) == ("confirmed_by_customer_status", 3)
    await check_delivered(site, customer_id, record)


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
    record = await check_waiting(await site.ask(customer_id, challenge))
    assert site.calls("sign") == 0
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


@bad
async def test_a_question_without_a_good_answer_decides_nothing(start: StartSite, fault: Fault) -> None:
    """Given a 409 of unknown meaning and no word about the customer, then the same is sent until it is answered."""
    site = await start(**HASTY)
    site.simulator.state.switches.bare_conflicts = True
    site.fault(Fault(K.CONFLICT, "sign"), on("customer", fault))
    customer_id, challenge = site.customer()
    record = await check_waiting(await site.ask(customer_id, challenge))
    assert site.calls("customer") > 0
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


async def test_a_stray_404_ends_nothing(site: Site) -> None:
    """A gateway's 404 for a customer that is there: the same is sent again, and verified."""
    customer_id, challenge = site.customer()
    site.fault(Fault(K.REDIRECT, "sign", status=404, times=2))  # before the API: it is not kept under the key
    answer = await site.ask(customer_id, challenge)
    record = await answer.json()
    assert (answer.status, record["state"], record["attempts"]) == (200, "verified", 3)
    assert site.calls("customer") == 2


async def test_a_404_of_a_customer_that_is_not_there_ends_it(site: Site) -> None:
    """The customer does not exist: the signature is rejected, and was sent once."""
    _, challenge = site.customer()
    answer = await site.ask(str(uuid.uuid4()), challenge)
    record = await answer.json()
    assert (answer.status, record["state"], record["code"]) == (200, "rejected", "customer_unknown_upstream")
    assert (site.calls("sign"), site.calls("customer")) == (1, 1)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_5xx_kept_under_the_key_holds_no_verified_challenge_open(site: Site, status: int) -> None:
    """The API verified the signature, and answers its first 5xx for an hour: the third time, the customer is asked."""
    site.simulator.state.switches.replay_server_errors = True
    site.fault(Fault(K.STATUS_AFTER_COMMIT, "sign", status=status, times=1))
    customer_id, challenge = site.customer()
    answer = await site.ask(customer_id, challenge)
    record = await answer.json()
    assert (answer.status, record["state"]) == (200, "verified")
    assert (record["code"], record["attempts"]) == ("confirmed_by_customer_status", 3)
    await check_delivered(site, customer_id, record)
    assert site.simulator.state.ledger.outcomes("sign") == {str(status): 3}
