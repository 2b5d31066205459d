"""A service with the owner's key and the request key in one SoftHSM token."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from signer.devsite.site import LocalSite
from tests.e2e.conftest import OpenSite, log_lines
from tests.support.irregularities import irregularities

pytestmark = pytest.mark.needs("softhsm2-util")

FAILURES = {"http.unexpected_error", "recovery.unexpected_error", "library.message", "card_api.breaker_opened"}


async def ready(site: LocalSite, *, status: int) -> None:
    """Wait until readiness has this status and no check fails but those of the token's keys."""
    async with asyncio.timeout(60):
        while True:
            found, report = await site.get("/readyz")
            failed = {check["name"] for check in report["checks"] if not check["ok"]}
            if found == status and failed <= {"keys", "request_key"}:
                return
            await asyncio.sleep(0.2)


async def test_service_recovers_after_the_token_was_removed_and_put_back(open_site: OpenSite, tmp_path: Path) -> None:
    """Meanwhile it is not ready and responds 503 with ``Retry-After``; the circuit breaker stays closed."""
    site = await open_site(kind="pkcs11")
    first, second, third = [await site.create_customer() for _ in range(3)]
    assert (await site.sign(first["id"]))[1]["state"] == "verified"
    (folder,) = (site.folder / "tokens").iterdir()
    folder.rename(tmp_path / "removed")
    await ready(site, status=503)
    url = f"{site.base_url}/v1/customers/{second['id']}/challenge/sign"
    async with site.http.post(url, json={"ownerId": str(site.owner)}, headers=site.authorization) as response:
        problem = await response.json()
        assert (response.status, problem["code"]) == (503, "card_api_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
        assert str(site.folder) not in str(problem)
    status, problem = await site.sign(third["id"], challenge=third["challenge"])
    assert (status, problem["code"]) == (503, "key_backend_unavailable")
    (tmp_path / "removed").rename(folder)
    await ready(site, status=200)
    for customer in (second, third):
        assert (await site.sign(customer["id"]))[1]["state"] == "verified"
        ledger = await site.ledger(customer["id"])
        assert [entry["status"] for entry in ledger["entries"]] == [204]
    events = await log_lines(site.replicas, "card_api.request_key_up")
    assert [line for event in events for line in irregularities(event)] == []
    names = {event["event"] for event in events}
    assert {"card_api.request_key_down", "card_api.request_key_up"} <= names
    assert names.isdisjoint(FAILURES)
    pin = (site.folder / "pin").read_text()
    assert not [event for event in events if pin in str(event)]
