"""Each kind of fault, as a client sees it."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from signer.simulator.app import RunningSimulator
from signer.simulator.faults import Fault, FaultKind
from signer.simulator.ledger import Fate
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.wallet_backend import (
    OWNER,
    OWNER_ID,
    Reply,
    Signing,
    WalletBackend,
    delivery,
    public_pem,
)

KEY = "123e4567-e89b-12d3-a456-426614174000"


async def start_with(
    start: StartSimulator, *faults: Fault, bare_conflicts: bool = False
) -> tuple[RunningSimulator, WalletBackend, str, dict[str, str]]:
    """Start a simulator with these faults, and create a customer with a signed challenge."""
    simulator, backend = await start(bare_conflicts=bare_conflicts)
    customer = await backend.create_customer()
    simulator.state.faults.put(faults)
    return simulator, backend, customer["id"], delivery(customer["challenge"])


async def status_of(backend: WalletBackend, customer_id: str) -> str:
    """Return the customer's status."""
    reply = await backend.call("GET", f"/v1/customers/{customer_id}")
    status: str = reply.json["status"]
    return status


@pytest.mark.parametrize(("status", "retry_after"), [(None, None), (500, None), (503, 2), (429, 7)])
async def test_status_replaces_handler(start: StartSimulator, status: int | None, retry_after: int | None) -> None:
    """For the next n requests, with Retry-After if it is set; nothing is changed."""
    fault = Fault(FaultKind.STATUS, route="sign", times=2, status=status, retry_after=retry_after)
    _, backend, customer_id, body = await start_with(start, fault)
    for _ in range(2):
        reply = await backend.deliver(customer_id, body, key=KEY)
        assert (reply.status, reply.code) == (status or 503, "simulated_failure")
        assert reply.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert await status_of(backend, customer_id) == "initiating"
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 204


async def test_status_after_commit_hides_a_success(start: StartSimulator) -> None:
    """500, although the challenge is signed; the key was not kept, so a repetition gets 409."""
    fault = Fault(FaultKind.STATUS_AFTER_COMMIT, route="sign", times=1)
    simulator, backend, customer_id, body = await start_with(start, fault)
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 500
    assert await status_of(backend, customer_id) == "verifying"
    reply = await backend.deliver(customer_id, body, key=KEY)
    assert (reply.status, reply.code) == (409, "challenge_already_signed")
    assert [(entry.status, entry.verified) for entry in simulator.state.ledger.entries()] == [(500, True), (409, False)]


async def test_reply_is_dropped_after_commit(start: StartSimulator) -> None:
    """The connection closes without a response; the state has changed, and the key replays the lost response."""
    simulator, backend, customer_id, body = await start_with(start, Fault(FaultKind.DROP_REPLY, times=1))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await backend.deliver(customer_id, body, key=KEY)
    assert await status_of(backend, customer_id) == "verifying"
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 204
    first, second = simulator.state.ledger.entries()
    assert (first.status, first.verified, first.fate) == (204, True, Fate.DROPPED)
    assert (second.status, second.replayed, second.fate) == (204, True, Fate.SENT)


async def test_request_is_dropped_before_handling(start: StartSimulator) -> None:
    """The client cannot tell it from a lost reply; nothing has changed."""
    simulator, backend, customer_id, body = await start_with(start, Fault(FaultKind.DROP_REQUEST, times=1))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await backend.deliver(customer_id, body, key=KEY)
    assert await status_of(backend, customer_id) == "initiating"
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 204
    first, second = simulator.state.ledger.entries()
    assert (first.status, first.verified, first.fate) == (None, False, Fate.DROPPED)
    assert (second.verified, second.replayed) == (True, False)


async def test_response_is_cut_in_its_body(start: StartSimulator) -> None:
    """It is shorter than its Content-Length."""
    simulator, backend = await start()
    customer = await backend.create_customer()
    simulator.state.faults.put([Fault(FaultKind.CUT_REPLY, times=1)])
    with pytest.raises(aiohttp.ClientPayloadError):
        await backend.challenge(customer["id"])
    assert await backend.challenge(customer["id"]) == customer["challenge"]


async def test_response_without_body_is_cut_in_its_head(start: StartSimulator) -> None:
    """A 204 is cut in its header fields; the delivery was verified."""
    simulator, backend, customer_id, body = await start_with(start, Fault(FaultKind.CUT_REPLY, times=1))
    with pytest.raises(aiohttp.ClientError):
        await backend.deliver(customer_id, body)
    assert await status_of(backend, customer_id) == "verifying"
    assert [entry.fate for entry in simulator.state.ledger.entries()] == [Fate.CUT]


async def _spoilt(start: StartSimulator, fault: Fault) -> Reply:
    simulator, backend = await start()
    customer = await backend.create_customer()
    simulator.state.faults.put([fault])
    return await backend.call("GET", f"/v1/customers/{customer['id']}/challenge")


async def test_garbage_is_malformed_json(start: StartSimulator) -> None:
    """200 with the Content-Type of JSON."""
    reply = await _spoilt(start, Fault(FaultKind.GARBAGE))
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


async def test_wrong_content_type_is_html(start: StartSimulator) -> None:
    """200, like a proxy's page."""
    reply = await _spoilt(start, Fault(FaultKind.WRONG_CONTENT_TYPE))
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html")
    assert reply.body.startswith(b"<html>")


async def test_oversized_response_is_valid_json(start: StartSimulator) -> None:
    """Of the fault's size."""
    reply = await _spoilt(start, Fault(FaultKind.OVERSIZED, size=1_000_000))
    assert reply.status == 200
    assert len(reply.json["challenge"]) == 1_000_000


async def test_spoilt_204_is_200_with_body(start: StartSimulator) -> None:
    """The client cannot read it, although the delivery was verified."""
    simulator, backend, customer_id, body = await start_with(start, Fault(FaultKind.GARBAGE, route="sign", times=1))
    assert (await backend.deliver(customer_id, body)).status == 200
    assert await status_of(backend, customer_id) == "verifying"
    assert [(entry.status, entry.fate) for entry in simulator.state.ledger.entries()] == [(204, Fate.SPOILT)]


@pytest.mark.parametrize("status", [None, 302, 308])
async def test_followed_redirect_is_counted(start: StartSimulator, status: int | None) -> None:
    """307 by default; nothing is changed."""
    fault = Fault(FaultKind.REDIRECT, times=1, status=status)
    simulator, backend, customer_id, body = await start_with(start, fault)
    reply = await backend.deliver(customer_id, body)
    assert (reply.status, reply.headers["Location"]) == (status or 307, "/_sim/elsewhere")
    assert await status_of(backend, customer_id) == "initiating"
    assert simulator.state.ledger.calls("elsewhere") == 0
    assert (await backend.send("POST", reply.headers["Location"])).status == 200
    assert simulator.state.ledger.calls("elsewhere") == 1


async def test_conflict_fault_returns_409_once(start: StartSimulator) -> None:
    """As if the key were in flight; a repetition works."""
    _, backend, customer_id, body = await start_with(start, Fault(FaultKind.CONFLICT, route="sign", times=1))
    reply = await backend.deliver(customer_id, body, key=KEY)
    assert (reply.status, reply.code) == (409, "idempotency_conflict")
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 204


async def test_bare_conflicts_have_no_body(start: StartSimulator) -> None:
    """A client cannot tell the two meanings of 409 apart; the ledger can."""
    simulator, backend, customer_id, body = await start_with(
        start, Fault(FaultKind.CONFLICT, route="sign", times=1), bare_conflicts=True
    )
    replies = [await backend.deliver(customer_id, body) for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies] == [(409, b""), (204, b""), (409, b"")]
    assert [e.code for e in simulator.state.ledger.entries()] == [
        "idempotency_conflict",
        None,
        "challenge_already_signed",
    ]


async def test_signatures_of_one_key_id_are_refused(start: StartSimulator) -> None:
    """As the vendor refuses any request signature; the requests of the other replica pass."""
    keys = {"replica-1": public_pem(), "replica-2": public_pem()}
    fault = Fault(FaultKind.REFUSE_SIGNATURE, key_id="replica-1")
    simulator, backend = await start(signing_keys=keys, faults=(fault,))
    path = "/v1/customers"
    replies = [await backend.call("GET", path, signing=Signing(key_id=key_id)) for key_id in keys]
    assert [(reply.status, reply.body) for reply in replies] == [(400, b"invalid required signature"), (200, b"[]")]
    assert simulator.state.faults.struck[FaultKind.REFUSE_SIGNATURE] == 1


async def test_refused_delivery_leaves_challenge_and_is_not_admitted(start: StartSimulator) -> None:
    """The gate does not look at the body: no new challenge is issued."""
    fault = Fault(FaultKind.REFUSE_SIGNATURE, "sign", times=1)
    simulator, backend, customer_id, body = await start_with(start, fault)
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 400
    assert await backend.challenge(customer_id) == body["challenge"]
    assert (await backend.deliver(customer_id, body, key=KEY)).status == 204
    assert [(e.status, e.admitted) for e in simulator.state.ledger.entries()] == [(400, False), (204, True)]


async def test_wrong_date_is_that_of_one_response(start: StartSimulator) -> None:
    """A proxy's clock is two hours ahead; the card API's own clock is right."""
    simulator, backend = await start(faults=(Fault(FaultKind.WRONG_DATE, times=1, seconds=7200),))
    dates = [parsedate_to_datetime((await backend.call("GET", "/v1/customers")).headers["Date"]) for _ in range(2)]
    ahead = [date.timestamp() - simulator.state.clock.now() for date in dates]
    assert ahead == [pytest.approx(7200, abs=60), pytest.approx(0, abs=60)]


async def test_latency_delays_request(start: StartSimulator) -> None:
    """A request without latency overtakes it."""
    simulator, backend = await start()
    customer = await backend.create_customer()
    simulator.state.faults.put([Fault(FaultKind.LATENCY, route="challenge", times=1, seconds=0.3)])
    # The fault strikes the request that arrives first; the other one overtakes it.
    both = [asyncio.create_task(backend.challenge(customer["id"])) for _ in range(2)]
    done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(waiting)) == (1, 1)
    assert [await task for task in both] == [customer["challenge"]] * 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.CHALLENGE_PEM, "-----BEGIN PUBLIC KEY-----"),
        (FaultKind.CHALLENGE_OTHER_DOMAIN, "login.example.org wants you to sign in with your Ethereum account:"),
        (FaultKind.CHALLENGE_OTHER_OWNER, "api.sandbox.offblocks.xyz wants you to sign in with your Ethereum account:"),
    ],
)
@pytest.mark.parametrize("route", ["create_customer", "challenge"])
async def test_wrong_challenge_is_returned(start: StartSimulator, route: str, kind: FaultKind, expected: str) -> None:
    """On either route; the customer's challenge stays, so a signature over the wrong one is refused."""
    _, backend = await start(faults=(Fault(kind, route=route, times=1),))
    customer = await backend.create_customer()
    shown = customer["challenge"] if route == "create_customer" else await backend.challenge(customer["id"])
    lines = b64decode(shown).decode().split("\n")
    assert lines[0] == expected
    assert (OWNER.address in lines) == (kind is FaultKind.CHALLENGE_OTHER_DOMAIN)
    reply = await backend.deliver(customer["id"], delivery(shown))
    assert (reply.status, reply.code) == (400, "challenge_mismatch")


async def test_challenge_of_other_domain_differs_in_domain_and_uri(start: StartSimulator) -> None:
    """The message is well-formed: only the policy can refuse it."""
    _, backend = await start(faults=(Fault(FaultKind.CHALLENGE_OTHER_DOMAIN),))
    text = b64decode((await backend.create_customer())["challenge"]).decode()
    assert "\nURI: https://login.example.org\n" in text
    assert "offblocks.xyz" not in text


async def test_complete_flow_without_faults(start: StartSimulator) -> None:
    """Token, customer, challenge and signature over HTTP."""
    simulator, backend = await start()
    settings = simulator.state.settings
    await backend.fetch_token(settings.api_key, settings.api_secret)
    customer = await backend.create_customer(OWNER_ID)
    assert (await backend.deliver(customer["id"], delivery(await backend.challenge(customer["id"])))).status == 204
    assert simulator.state.faults.struck.total() == 0
