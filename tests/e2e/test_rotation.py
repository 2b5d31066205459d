"""Rotation of the request key and of the API credentials, step by step as docs/keys/request-key.md describes it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from signer.devsite.site import LocalSite, Replica
from tests.e2e.conftest import OpenSite, log_lines, repeat_while_in_progress, sign_and_verify
from tests.e2e.test_failures import settled

QUICK_DEFERRALS = {
    "http": "answer_within = 1",
    "forwarding": "first_pause = 0.1\nlongest_pause = 0.5\nrecover_every = 0.2",
}


async def call(site: LocalSite, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], dict[str, Any]]:  # noqa: ANN401 - aiohttp's
    """Call the card API or the service, and return status, header fields and body."""
    async with site.http.request(method, path, **options) as response:
        text = await response.text()
        return response.status, dict(response.headers), json.loads(text) if text else {}


async def authorization(site: LocalSite) -> dict[str, str]:
    """Return the header with a new token of the card API, as an operator fetches one."""
    files = {"apiKey": "api-key", "apiSecret": "api-secret"}
    credentials = {name: (site.folder / "card-api" / file).read_text() for name, file in files.items()}
    status, _, token = await call(site, "POST", f"{site.card_api}/v1/auth/token", json=credentials)
    assert status == 200
    return {"Authorization": f"Bearer {token['token']}"}


async def ready(site: LocalSite, replica: Replica) -> None:
    """Wait until a replica is ready: then it has a token of the card API."""
    async with asyncio.timeout(20):
        while True:
            if (await call(site, "GET", f"{replica.base_url}/readyz"))[0] == 200:
                return
            await asyncio.sleep(0.05)


async def request_key(*arguments: str) -> str:
    """Run ``signer request-key``, and return what is registered."""
    command = (sys.executable, "-m", "signer", "request-key", *arguments, "--json")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return str(json.loads(output)["publicKeyBase64"])


async def register(site: LocalSite, public_key: str) -> str:
    """Replace the registered request key, and return the key id of the response."""
    url, body = f"{site.card_api}/v1/auth/signing", {"publicKey": public_key}
    status, _, answer = await call(site, "PUT", url, json=body, headers=await authorization(site))
    assert status == 200
    return str(answer["id"])


async def roll_out(site: LocalSite, key_file: Path, key_id: str) -> None:
    """Change both settings together, and replace every replica by one with the new settings."""
    config = site.folder / "signer.toml"
    kept = [line for line in config.read_text().splitlines() if not line.startswith("signing_key_")]
    kept.insert(kept.index("[card_api]") + 1, f'signing_key_file = "{key_file}"\nsigning_key_id = "{key_id}"')
    config.write_text("\n".join(kept))
    old = list(site.replicas)
    site.replicas.clear()
    for replica in old:
        await site.start_replica()
        replica.process.signal(signal.SIGTERM)
        assert await asyncio.wait_for(replica.process.wait(), 20) == 0


async def sign_in_the_gap(site: LocalSite, customers: Sequence[dict[str, Any]]) -> list[str]:
    """Sign one challenge on each replica while its request key is refused; return the ids of the records."""
    waiting = []
    for replica, customer in zip(site.replicas, customers, strict=True):
        sign = partial(site.sign, customer["id"], replica=replica, challenge=customer["challenge"])
        status, record = await repeat_while_in_progress(sign)
        # Deliveries are repeated until the response is due, so it may come during one of them.
        assert (status, record["state"] in {"signed", "forwarding"}) == (202, True)
        waiting.append(record["id"])
        of_this: list[str] = []
        async with asyncio.timeout(20):
            while not of_this:  # recovery may defer the other record meanwhile
                lines = await log_lines([replica], "challenge.deferred")
                deferred = [line for line in lines if line["event"] == "challenge.deferred"]
                assert {line["code"] for line in deferred} == {"credentials_refused"}
                of_this = [line["level"] for line in deferred if line["challenge_id"] == record["id"]]
        assert of_this == ["warning", *["debug"] * (len(of_this) - 1)]
    return waiting


async def check_delivered(site: LocalSite, customers: Sequence[dict[str, Any]], records: Sequence[str]) -> None:
    """Wait until all records are verified; each was delivered under one Idempotency-Key and accepted once."""
    for customer, record in zip(customers, records, strict=True):
        assert (await settled(site, record, within=40))["state"] == "verified"
        entries = (await site.ledger(customer["id"]))["entries"]
        assert [entry["status"] for entry in entries if entry["admitted"]] == [204]
        assert {entry["status"] for entry in entries if not entry["admitted"]} == {400}
        assert len({entry["idempotencyKey"] for entry in entries}) == 1


@pytest.mark.timeout(180)
async def test_request_key_is_rotated_and_rolled_back_without_losing_a_challenge(open_site: OpenSite) -> None:
    """The card API has one slot: between the registration and the rollout deliveries are deferred, then all succeed."""
    site = await open_site(**QUICK_DEFERRALS)
    await site.start_replica()
    customers = [await site.create_customer() for _ in range(6)]
    old_file, new_file = (site.folder / "card-api" / name for name in ("signing-key.pem", "signing-key-2.pem"))

    key_id = await register(site, await request_key("new", str(new_file)))
    waiting = await sign_in_the_gap(site, customers[:2])
    url = f"{site.base_url}/v1/customers/{customers[2]['id']}/challenge/sign"
    body = {"ownerId": str(site.owner)}
    sign = partial(call, site, "POST", url, json=body, headers=site.authorization)
    status, fields, problem = await repeat_while_in_progress(sign)
    assert (status, problem["code"]) == (503, "card_api_credentials_refused")
    assert int(fields["Retry-After"]) >= 1
    await roll_out(site, new_file, key_id)
    await check_delivered(site, customers[:2], waiting)
    await sign_and_verify(site, customers[2]["id"])

    key_id = await register(site, await request_key("export-public", str(old_file)))
    waiting = await sign_in_the_gap(site, customers[3:5])
    await roll_out(site, old_file, key_id)
    await check_delivered(site, customers[3:5], waiting)
    await sign_and_verify(site, customers[5]["id"])


async def test_api_credentials_are_rotated_without_a_refused_delivery(open_site: OpenSite) -> None:
    """The files first: replicas use their token until the card API revokes it, and then the new credentials."""
    site = await open_site()
    await site.start_replica()
    customers = [await site.create_customer() for _ in range(4)]
    token = await authorization(site)
    for replica in site.replicas:
        await ready(site, replica)
    new = {"apiKey": "0b0f7c0a-5a3e-4b7e-8a35-5d1f0f2f6c22", "apiSecret": "a-new-secret"}
    (site.folder / "card-api/api-key").write_text(new["apiKey"])
    (site.folder / "card-api/api-secret").write_text(new["apiSecret"])
    for replica, customer in zip(site.replicas, customers[:2], strict=True):
        assert (await site.sign(customer["id"], replica=replica))[1]["state"] == "verified"
    assert (await call(site, "PUT", f"{site.card_api}/v1/auth/credentials", json=new, headers=token))[0] == 204
    for replica, customer in zip(site.replicas, customers[2:], strict=True):
        status, record = await site.sign(customer["id"], replica=replica, challenge=customer["challenge"])
        assert (status, record["state"], record["attempts"]) == (200, "verified", 1)
    for customer in customers:
        assert (await site.ledger(customer["id"]))["entries"][-1]["status"] == 204
