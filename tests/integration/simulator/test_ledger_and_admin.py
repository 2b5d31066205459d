"""The ledger, and the admin API under ``/_sim``."""

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
    """Read the ledger over HTTP."""
    return (await backend.send("GET", f"/_sim/ledger{query}")).json


async def test_delivery_is_recorded_with_digests_only(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """The entry contains neither the signature nor the challenge."""
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
        "admitted": True,
        "verified": True,
        "replayed": False,
        "fate": "sent",
    }
    assert body["signature"].encode() not in reply.body
    assert body["challenge"].encode() not in reply.body


async def test_summary_after_repeated_delivery_is_one(backend: WalletBackend) -> None:
    """One delivery, one key, one signature."""
    customer = await backend.create_customer()
    for _ in range(2):
        await backend.deliver(customer["id"], delivery(customer["challenge"]), key=KEY)
    assert (await ledger(backend))["summary"] == {
        "verified": 1,
        "customersVerified": 1,
        "mostSignaturesForOneChallenge": 1,
        "mostKeysForOneChallenge": 1,
    }


async def test_summary_counts_signatures_and_keys(backend: WalletBackend) -> None:
    """It shows a client that signs one challenge twice, or uses two keys for it."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    await backend.deliver(customer["id"], body)
    raw_form = b64decode(body["signature"])[2:].decode()
    await backend.deliver(customer["id"], body | {"signature": raw_form})
    summary = (await ledger(backend))["summary"]
    assert (summary["mostSignaturesForOneChallenge"], summary["mostKeysForOneChallenge"]) == (2, 2)
    assert summary["verified"] == 1


async def test_summary_of_empty_ledger_is_zero(backend: WalletBackend) -> None:
    """Every number."""
    assert set((await ledger(backend))["summary"].values()) == {0}


async def test_refused_deliveries_are_recorded(backend: WalletBackend) -> None:
    """Invalid, unauthorized and malformed ones."""
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
    assert [entry["admitted"] for entry in entries] == [True, False, True, True, True]
    assert entries[2]["challengeSha256"] is entries[4]["challengeSha256"] is entries[4]["signatureSha256"] is None


async def test_ledger_can_be_filtered_by_customer(backend: WalletBackend) -> None:
    """Entries and summary."""
    customers = [await backend.create_customer() for _ in range(2)]
    for customer in customers:
        await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert (await ledger(backend))["summary"]["verified"] == 2
    one = await ledger(backend, f"?customerId={customers[0]['id']}")
    assert [entry["customerId"] for entry in one["entries"]] == [customers[0]["id"]]
    assert one["summary"]["verified"] == 1


async def test_routes_are_counted_by_outcome(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """By status; dropped responses separately."""
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


async def test_ledger_can_be_cleared_and_is_bounded(start: StartSimulator) -> None:
    """DELETE clears it; the oldest entries are removed above the limit."""
    _, backend = await start(ledger_limit=2)
    for customer_id in ("1", "2", "3"):
        await backend.deliver(customer_id, {})
    assert [entry["customerId"] for entry in (await ledger(backend))["entries"]] == ["2", "3"]
    assert (await backend.send("DELETE", "/_sim/ledger")).status == 204
    empty = await ledger(backend)
    assert (empty["entries"], empty["counters"]) == ([], {})


async def test_faults_and_switches_can_be_set(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """PUT replaces the faults and sets the given switches; GET returns both; DELETE resets them."""
    body = {
        "faults": [{"kind": "status", "route": "sign", "times": 2, "status": 429, "retry_after": 1}],
        "seed": 7,
        "switches": {"bareConflicts": True, "replayServerErrors": True, "clockOffset": -3},
    }
    reply = await backend.send("PUT", "/_sim/faults", body=body)
    assert reply.status == 200
    shown = (await backend.send("GET", "/_sim/faults")).json
    (row,) = shown["faults"]
    assert (row["kind"], row["left"], row["status"]) == ("status", 2, 429)
    assert shown["switches"] == {"bareConflicts": True, "replayServerErrors": True, "clockOffset": -3}
    assert simulator.state.clock.offset == -3
    assert (await backend.send("DELETE", "/_sim/faults")).status == 204
    shown = (await backend.send("GET", "/_sim/faults")).json
    assert shown["faults"] == []
    assert shown["switches"] == {"bareConflicts": False, "replayServerErrors": False, "clockOffset": 0}


async def test_fault_set_over_http_strikes_and_is_counted(backend: WalletBackend) -> None:
    """As one that is set in the same process."""
    await backend.send("PUT", "/_sim/faults", body={"faults": [{"kind": "status", "route": "customer", "times": 1}]})
    path = "/v1/customers/00000000-0000-4000-8000-000000000000"
    assert [(await backend.call("GET", path)).status for _ in range(2)] == [503, 404]
    shown = (await backend.send("GET", "/_sim/faults")).json
    assert shown["struck"] == {"status": 1}
    assert shown["faults"][0]["left"] == 0


@pytest.mark.parametrize("path", ["/v1/customers/x", "/_sim/ledger", "/nowhere"])
async def test_rfc9110_6_6_1_date_is_simulators_time(start: StartSimulator, path: str) -> None:
    """A wrong clock shows in every response."""
    _, backend = await start(clock_offset=-86_400.0)
    shown = parsedate_to_datetime((await backend.send("GET", path)).headers["Date"])
    assert (datetime.now(UTC) - shown).total_seconds() == pytest.approx(86_400, abs=60)


async def test_delete_resets_to_settings(start: StartSimulator) -> None:
    """Switches and clock of the settings, not the defaults."""
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
async def test_malformed_body_changes_nothing(
    simulator: RunningSimulator, backend: WalletBackend, body: object
) -> None:
    """400, and the faults stay."""
    simulator.state.faults.put([Fault(FaultKind.GARBAGE)])
    reply = await backend.send("PUT", "/_sim/faults", body=body)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert [row["kind"] for row in simulator.state.faults.to_json()] == ["garbage"]


@pytest.mark.parametrize("wrong", [{"judge": "nobody"}, {"token_lifetime": 0}, {"challenge_lifetime": -1.0}])
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    """An unknown judge, and lifetimes that are not positive."""
    with pytest.raises(ValueError, match=r"judge|lifetimes"):
        SimulatorSettings(**wrong)


def test_settings_hide_their_secret() -> None:
    """A repr may be logged."""
    assert "hush" not in repr(SimulatorSettings(api_secret="hush"))
