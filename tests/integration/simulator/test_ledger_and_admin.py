"""The ledger, and the admin surface under ``/_sim``."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from signer.simulator.app import RunningSimulator
from signer.simulator.faults import Fault, FaultKind
from signer.simulator.settings import SimulatorSettings
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.wallet_backend import OWNER_ID, STRANGER, WalletBackend, delivery

KEY = "123e4567-e89b-12d3-a456-426614174000"


async def ledger(backend: WalletBackend, query: str = "") -> dict[str, Any]:
    """The ledger over the wire."""
    return (await backend.send("GET", f"/_sim/ledger{query}")).json


async def test_a_delivery_is_entered_with_digests_only(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """Who, for whom, under which key, what it amounted to; neither signature nor challenge stand in it."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    await backend.deliver(customer["id"], body, key=KEY)
    reply = await backend.send("GET", "/_sim/ledger")
    (entry,) = reply.json["entries"]
    assert abs(entry.pop("at") - simulator.state.clock.now()) < 60
    assert entry == {
        "customerId": customer["id"],
        "ownerId": OWNER_ID,
        "idempotencyKey": KEY,
        "signatureSha256": hashlib.sha256(body["signature"].encode()).hexdigest(),
        "challengeSha256": hashlib.sha256(b64decode(body["challenge"])).hexdigest(),
        "status": 204,
        "code": None,
        "verified": True,
        "replayed": False,
        "fate": "sent",
    }
    assert body["signature"].encode() not in reply.body
    assert body["challenge"].encode() not in reply.body


async def test_the_summary_says_one_delivery_one_key_one_signature(backend: WalletBackend) -> None:
    """After a good run with a repetition, every number is one."""
    customer = await backend.create_customer()
    for _ in range(2):
        await backend.deliver(customer["id"], delivery(customer["challenge"]), key=KEY)
    assert (await ledger(backend))["summary"] == {
        "verified": 1,
        "customersVerified": 1,
        "mostSignaturesForOneChallenge": 1,
        "mostKeysForOneChallenge": 1,
    }


async def test_the_summary_shows_two_signatures_and_two_keys(backend: WalletBackend) -> None:
    """A client that signs one challenge twice, or uses two keys for it, is found out."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    await backend.deliver(customer["id"], body)
    raw_form = b64decode(body["signature"])[2:].decode()
    await backend.deliver(customer["id"], body | {"signature": raw_form})
    summary = (await ledger(backend))["summary"]
    assert (summary["mostSignaturesForOneChallenge"], summary["mostKeysForOneChallenge"]) == (2, 2)
    assert summary["verified"] == 1


async def test_an_empty_ledger_sums_up_to_nothing(backend: WalletBackend) -> None:
    """No entries: every number is nought."""
    assert set((await ledger(backend))["summary"].values()) == {0}


async def test_refused_deliveries_are_entered_too(backend: WalletBackend) -> None:
    """Whatever is posted there: refused by the API, at the door, or unreadable."""
    customer = await backend.create_customer()
    path = f"/v1/customers/{customer['id']}/challenge/sign"
    await backend.deliver(customer["id"], delivery(customer["challenge"], signer=STRANGER))
    await backend.send("POST", path, body=delivery(customer["challenge"]))
    await backend.call("POST", path, b"nonsense")
    await backend.call("POST", path, b"[]")
    await backend.call("POST", path, {"challenge": "not base64", "signature": 7})
    entries = (await ledger(backend))["entries"]
    assert [(entry["status"], entry["code"]) for entry in entries] == [
        (400, "signature_invalid"),
        (401, "token_missing"),
        *[(400, "invalid_request")] * 3,
    ]
    assert not any(entry["verified"] for entry in entries)
    assert entries[2]["challengeSha256"] is entries[4]["challengeSha256"] is entries[4]["signatureSha256"] is None


async def test_the_ledger_can_be_read_for_one_customer(backend: WalletBackend) -> None:
    """Entries and summary are then of that customer alone."""
    customers = [await backend.create_customer() for _ in range(2)]
    for customer in customers:
        await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert (await ledger(backend))["summary"]["verified"] == 2
    one = await ledger(backend, f"?customerId={customers[0]['id']}")
    assert [entry["customerId"] for entry in one["entries"]] == [customers[0]["id"]]
    assert one["summary"]["verified"] == 1


async def test_routes_are_counted_by_their_outcome(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """Status by status, and what was dropped apart."""
    settings = simulator.state.settings
    await backend.fetch_token(settings.api_key, settings.api_secret)
    customer = await backend.create_customer()
    await backend.challenge(customer["id"])
    simulator.state.faults.put([Fault(FaultKind.STATUS, times=1), Fault(FaultKind.GARBAGE, route="customer")])
    await backend.call("GET", f"/v1/customers/{customer['id']}/challenge")
    await backend.call("GET", f"/v1/customers/{customer['id']}")
    simulator.state.faults.put([Fault(FaultKind.DROP_REPLY)])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await backend.create_customer()
    assert (await ledger(backend))["counters"] == {
        "token": {"200": 1},
        "create_customer": {"201": 1, "dropped": 1},
        "challenge": {"200": 1, "503": 1},
        "customer": {"200": 1},
    }
    assert simulator.state.ledger.calls("challenge") == 2
    assert simulator.state.ledger.outcomes("challenge")["503"] == 1


async def test_the_ledger_can_be_emptied_and_is_bounded(start: StartSimulator) -> None:
    """DELETE begins a new page; without it the oldest entries give way."""
    _, backend = await start(ledger_limit=2)
    for customer_id in ("1", "2", "3"):
        await backend.deliver(customer_id, {})
    assert [entry["customerId"] for entry in (await ledger(backend))["entries"]] == ["2", "3"]
    assert (await backend.send("DELETE", "/_sim/ledger")).status == 204
    empty = await ledger(backend)
    assert (empty["entries"], empty["counters"]) == ([], {})


async def test_faults_and_switches_are_set_while_it_runs(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """PUT replaces the faults and sets the switches it names; GET tells how they stand; DELETE takes all away."""
    wanted = {
        "faults": [{"kind": "status", "route": "sign", "times": 2, "status": 429, "retry_after": 1}],
        "seed": 7,
        "switches": {"bareConflicts": True, "replayServerErrors": True, "clockOffset": -3},
    }
    reply = await backend.send("PUT", "/_sim/faults", body=wanted)
    assert reply.status == 200
    told = (await backend.send("GET", "/_sim/faults")).json
    (row,) = told["faults"]
    assert (row["kind"], row["left"], row["status"]) == ("status", 2, 429)
    assert told["switches"] == {"bareConflicts": True, "replayServerErrors": True, "clockOffset": -3}
    assert simulator.state.clock.offset == -3
    assert (await backend.send("DELETE", "/_sim/faults")).status == 204
    told = (await backend.send("GET", "/_sim/faults")).json
    assert told["faults"] == []
    assert told["switches"] == {"bareConflicts": False, "replayServerErrors": False, "clockOffset": 0}


async def test_a_fault_set_over_the_wire_strikes_and_is_counted(backend: WalletBackend) -> None:
    """The table is the same one, wherever it is filled."""
    await backend.send("PUT", "/_sim/faults", body={"faults": [{"kind": "status", "route": "customer", "times": 1}]})
    path = "/v1/customers/00000000-0000-4000-8000-000000000000"
    assert [(await backend.call("GET", path)).status for _ in range(2)] == [503, 404]
    told = (await backend.send("GET", "/_sim/faults")).json
    assert told["struck"] == {"status": 1}
    assert told["faults"][0]["left"] == 0


@pytest.mark.parametrize("path", ["/v1/customers/x", "/_sim/ledger", "/nowhere"])
async def test_rfc9110_6_6_1_date_is_the_simulators_own_time(start: StartSimulator, path: str) -> None:
    """A clock that is wrong is wrong everywhere: whoever compares ``Date`` with his own sees it."""
    _, backend = await start(clock_offset=-86_400.0)
    told = parsedate_to_datetime((await backend.send("GET", path)).headers["Date"])
    assert (datetime.now(UTC) - told).total_seconds() == pytest.approx(86_400, abs=60)


async def test_deleting_goes_back_to_the_settings(start: StartSimulator) -> None:
    """The switches and the clock of the settings, not those of the defaults."""
    simulator, backend = await start(bare_conflicts=True, clock_offset=1.0)
    await backend.send("PUT", "/_sim/faults", body={"switches": {"bareConflicts": False, "clockOffset": 5}})
    assert (simulator.state.switches.bare_conflicts, simulator.state.clock.offset) == (False, 5)
    await backend.send("DELETE", "/_sim/faults")
    assert (simulator.state.switches.bare_conflicts, simulator.state.clock.offset) == (True, 1.0)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"fault": []},
        {"faults": {}},
        {"faults": [{"kind": "nothing"}]},
        {"faults": [{"kind": "status"}, 1]},
        {"seed": "x"},
        {"switches": []},
        {"switches": {"bare": True}},
        {"switches": {"bareConflicts": 1}},
        {"switches": {"clockOffset": "1"}},
    ],
)
async def test_what_cannot_be_set_changes_nothing(
    simulator: RunningSimulator, backend: WalletBackend, body: object
) -> None:
    """400, and the faults that stood still stand."""
    simulator.state.faults.put([Fault(FaultKind.GARBAGE)])
    reply = await backend.send("PUT", "/_sim/faults", body=body)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert [row["kind"] for row in simulator.state.faults.to_json()] == ["garbage"]


@pytest.mark.parametrize("wrong", [{"judge": "nobody"}, {"token_lifetime": 0}, {"challenge_lifetime": -1.0}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    """An unknown judge, and lives that are over before they begin."""
    with pytest.raises(ValueError, match=r"judge|lifetimes"):
        SimulatorSettings(**wrong)


def test_settings_do_not_show_their_secret() -> None:
    """A repr may end up in a log."""
    assert "hush" not in repr(SimulatorSettings(api_secret="hush"))
