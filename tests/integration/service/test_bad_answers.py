"""Bad responses of the card API: cut, oversized, unparsable, redirected, wrong."""

from __future__ import annotations

import asyncio
import base64
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import Site, check_waiting

K = FaultKind
CUT = [Fault(K.CUT_REPLY, "sign"), Fault(K.DROP_REPLY, "sign")]
UNPARSABLE = [Fault(kind, "sign") for kind in (K.OVERSIZED, K.GARBAGE, K.WRONG_CONTENT_TYPE)]
REDIRECTS = [Fault(K.REDIRECT, "sign", status=status) for status in (301, 302, 303, 307, 308)]
BAD = [*CUT, *UNPARSABLE, *REDIRECTS]


def name(fault: Fault) -> str:
    """Return the name of a test case."""
    return f"{fault.kind} {fault.status or ''}".strip()


def on(route: str, fault: Fault, **details: Any) -> Fault:  # noqa: ANN401 - a fault's own fields
    """Return the same fault on another route."""
    return Fault(fault.kind, route, status=fault.status, **details)


IMPATIENT: dict[str, dict[str, object]] = {"http": {"answer_within": 1.0}}
bad = pytest.mark.parametrize("fault", BAD, ids=name)


async def check_delivered(site: Site, customer_id: str, record: dict[str, Any]) -> None:
    """Assert that one signature was verified, all deliveries had one Idempotency-Key, and no redirect was followed."""
    entries = site.simulator.state.ledger.entries(customer_id)
    assert [entry.verified for entry in entries].count(True) == 1
    assert len({(entry.idempotency_key, entry.signature_sha256) for entry in entries}) == 1
    assert record["attempts"] >= len(entries)
    assert site.calls("elsewhere") == 0


@bad
async def test_delivery_is_retried_after_one_bad_response(site: Site, fault: Fault) -> None:
    """The second attempt has the same Idempotency-Key; the caller gets the final state."""
    customer_id, challenge = site.customer()
    site.fault(on("sign", fault, times=1))
    response = await site.ask(customer_id, challenge)
    record = await response.json()
    assert (response.status, record["state"], record["attempts"]) == (200, "verified", 2)
    await check_delivered(site, customer_id, record)


@pytest.mark.parametrize("fault", [*CUT, *REDIRECTS], ids=name)
async def test_delivery_continues_after_202_while_responses_are_bad(start: StartSite, fault: Fault) -> None:
    """The caller gets 202 and the signature, which is delivered once the card API recovers."""
    site = await start(**IMPATIENT)
    site.fault(fault)
    customer_id, challenge = site.customer()
    record = await check_waiting(await site.ask_patiently(customer_id, challenge))
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


async def test_delivery_is_rejected_only_after_it_was_refused_for_a_while(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three minutes, which are shortened here. Each 400 keeps the challenge; it is repeated under the same key."""
    monkeypatch.setattr("signer.application.settle_or_defer.REFUSAL_CONFIRMED_AFTER", timedelta(seconds=0.2))
    site.fault(Fault(K.STATUS, "sign", status=400))
    customer_id, challenge = site.customer()
    response = await site.ask(customer_id, challenge)
    record = await response.json()
    assert (response.status, record["state"], record["code"]) == (200, "rejected", "refused_by_card_api")
    assert {line["code"] for line in site.log.of("challenge.deferred")} == {"refusal_unconfirmed"}
    entries = site.simulator.state.ledger.entries(customer_id)
    assert record["attempts"] == len(entries) > 1
    assert len({(entry.idempotency_key, entry.signature_sha256) for entry in entries}) == 1


@pytest.mark.parametrize("fault", UNPARSABLE, ids=name)
async def test_customer_status_decides_after_three_unparsable_responses(site: Site, fault: Fault) -> None:
    """The card API verified the signature but its responses are unusable; the customer's status confirms it."""
    site.fault(fault)
    customer_id, challenge = site.customer()
    response = await site.ask(customer_id, challenge)
    record = await response.json()
    assert (response.status, record["state"]) == (200, "verified")
    assert (record["code"], record["attempts"]) == ("confirmed_by_customer_status", 3)
    await check_delivered(site, customer_id, record)


@pytest.mark.parametrize("fault", CUT, ids=name)
async def test_fetch_of_a_challenge_is_retried_after_a_cut(site: Site, fault: Fault) -> None:
    """The third attempt succeeds."""
    customer_id, _ = site.customer()
    site.fault(on("challenge", fault, times=2))
    response = await site.ask(customer_id)
    record = await response.json()
    assert (response.status, record["state"]) == (200, "verified")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        *((fault, 503, "card_api_unavailable") for fault in CUT),
        *((fault, 502, "card_api_invalid_answer") for fault in [*UNPARSABLE, *REDIRECTS]),
        (Fault(K.CHALLENGE_PEM), 502, "card_api_challenge_refused"),
        (Fault(K.CHALLENGE_OTHER_OWNER), 422, "owner_mismatch"),
        (Fault(K.CHALLENGE_OTHER_DOMAIN), 502, "card_api_challenge_refused"),
    ],
    ids=lambda value: name(value) if isinstance(value, Fault) else str(value),
)
async def test_bad_challenge_is_refused_and_nothing_is_signed(site: Site, fault: Fault, status: int, code: str) -> None:
    """The problem names the reason; no nonce is claimed, nothing is delivered, no redirect is followed."""
    customer_id, _ = site.customer()
    site.fault(on("challenge", fault))
    response = await site.ask(customer_id)
    problem = await response.json()
    assert (response.status, problem["code"]) == (status, code)
    assert ("Retry-After" in response.headers) is (status != 422)
    assert not site.log.of("challenge.claimed")
    assert site.calls("sign") + site.calls("elsewhere") == 0
    site.calm()
    assert (await (await site.ask(customer_id)).json())["state"] == "verified"


@bad
async def test_signature_waits_while_no_access_token_can_be_fetched(start: StartSite, fault: Fault) -> None:
    """The caller gets 202, no credentials go to another server, and the delivery follows later."""
    site = await start(**IMPATIENT)
    site.fault(on("token", fault))
    customer_id, challenge = site.customer()
    record = await check_waiting(await site.ask_patiently(customer_id, challenge))
    assert site.calls("sign") == 0
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


@bad
async def test_delivery_is_retried_while_the_customer_status_is_unknown(start: StartSite, fault: Fault) -> None:
    """After a 409 of unknown meaning and a bad response about the customer, nothing is settled."""
    site = await start(**IMPATIENT)
    site.simulator.state.switches.bare_conflicts = True
    site.fault(Fault(K.CONFLICT, "sign"), on("customer", fault))
    customer_id, challenge = site.customer()
    record = await check_waiting(await site.ask_patiently(customer_id, challenge))
    async with asyncio.timeout(30):
        while not site.calls("customer"):  # noqa: ASYNC110 - the simulator's ledger sends no event
            await asyncio.sleep(0.01)
    site.calm()
    await check_delivered(site, customer_id, await site.settled(record["id"]))


async def test_delivery_is_retried_after_404_if_the_customer_exists(site: Site) -> None:
    """The 404 came from a gateway; the third attempt is verified."""
    customer_id, challenge = site.customer()
    # A redirect fault acts in front of the card API, which therefore stores no response under the Idempotency-Key.
    site.fault(Fault(K.REDIRECT, "sign", status=404, times=2))
    response = await site.ask(customer_id, challenge)
    record = await response.json()
    assert (response.status, record["state"], record["attempts"]) == (200, "verified", 3)
    assert site.calls("customer") == 2


def _a_minute_older(challenge: str) -> str:
    """Return the challenge with an earlier ``Issued At``."""
    text, _, issued_at = base64.b64decode(challenge).decode("ascii").rpartition("Issued At: ")
    older = datetime.fromisoformat(issued_at) - timedelta(minutes=1)
    return base64.b64encode(f"{text}Issued At: {older:%Y-%m-%dT%H:%M:%SZ}".encode()).decode()


async def test_challenge_is_rejected_after_404_if_the_customer_does_not_exist(site: Site) -> None:
    """The challenge is a minute old, so the customer is not one that was just created. It was sent once."""
    _, challenge = site.customer()
    response = await site.ask(str(uuid.uuid4()), _a_minute_older(challenge))
    record = await response.json()
    assert (response.status, record["state"], record["code"]) == (200, "rejected", "customer_unknown_upstream")
    assert (site.calls("sign"), site.calls("customer")) == (1, 1)


@pytest.mark.parametrize("status", [500, 503])
async def test_customer_status_decides_after_a_replayed_5xx(site: Site, status: int) -> None:
    """The card API verified the signature but replays its 5xx; after the third one the customer's status decides."""
    site.simulator.state.switches.replay_server_errors = True
    site.fault(Fault(K.STATUS_AFTER_COMMIT, "sign", status=status, times=1))
    customer_id, challenge = site.customer()
    response = await site.ask(customer_id, challenge)
    record = await response.json()
    assert (response.status, record["state"]) == (200, "verified")
    assert (record["code"], record["attempts"]) == ("confirmed_by_customer_status", 3)
    await check_delivered(site, customer_id, record)
    assert site.simulator.state.ledger.outcomes("sign") == {str(status): 3}
