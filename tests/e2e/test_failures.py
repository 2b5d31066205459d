"""What happens to a challenge when a process is killed, hangs, or refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from typing import Any

import redis

from signer.devsite.site import LocalSite
from tests.e2e.conftest import OpenSite, log_lines, on_shared_site, repeat_while_in_progress, sign_and_verify

QUICK = {"card_api": "request_timeout = 2", "redis": "lease = 6", "http": "answer_within = 2"}


def stored(site: LocalSite, challenge_id: str) -> dict[bytes, bytes]:
    """Return the hash of a record in Redis."""
    with redis.Redis.from_url(site.redis_url) as client:
        record: dict[bytes, bytes] = client.hgetall(f"signer:{{s{challenge_id[:2]}}}:challenge:{challenge_id[2:]}")
        return record


async def settled(site: LocalSite, challenge_id: str, within: float) -> dict[str, Any]:
    """Wait until the record is final and return it."""
    async with asyncio.timeout(within):
        while True:
            _, record = await site.get(f"/v1/challenges/{challenge_id}")
            if record.get("state") in {"verified", "already_signed", "rejected", "superseded", "expired"}:
                return record
            await asyncio.sleep(0.05)


async def ready(site: LocalSite, within: float) -> None:
    """Wait until the service is ready."""
    async with asyncio.timeout(within):
        while True:
            if (await site.get("/readyz"))[0] == 200:
                return
            await asyncio.sleep(0.05)


async def test_signature_is_delivered_after_sigkill_and_restart(open_site: OpenSite) -> None:
    """The restarted service delivers the same bytes under the same Idempotency-Key."""
    site = await open_site(**QUICK)
    customer = await site.create_customer()
    await site.set_faults({"kind": "drop_request", "route": "sign"})
    request = asyncio.create_task(site.sign(customer["id"]))
    signed = await site.replicas[0].process.wait_for("challenge.signed", 10)
    await site.replicas[0].process.kill()
    await asyncio.gather(request, return_exceptions=True)
    before = stored(site, signed["challenge_id"])
    body = json.loads(before[b"submission"])
    assert not any(entry["verified"] for entry in (await site.ledger(customer["id"]))["entries"])

    await site.set_faults()
    await site.start_replica()
    record = await settled(site, signed["challenge_id"], within=30)
    assert record["state"] == "verified"
    assert record["signature"] == body["signature"]
    (entry,) = [entry for entry in (await site.ledger(customer["id"]))["entries"] if entry["verified"]]
    assert entry["signatureSha256"] == hashlib.sha256(body["signature"].encode()).hexdigest()
    lines = await log_lines(site.replicas[1:], "challenge.settled")
    delivered = [line["idempotency_key"] for line in lines if line["event"] == "challenge.delivered"]
    assert delivered == [entry["idempotencyKey"]]
    assert b"submission" not in stored(site, signed["challenge_id"])


@on_shared_site
async def test_delivery_is_retried_after_a_lost_response(site: LocalSite) -> None:
    """Both deliveries have one Idempotency-Key, so the card API has one signature."""
    customer = await site.create_customer()
    await site.set_faults({"kind": "drop_reply", "route": "sign", "times": 1})
    status, record = await site.sign(customer["id"])
    assert (status, record["state"], record["attempts"]) == (200, "verified", 2)
    entries = (await site.ledger(customer["id"]))["entries"]
    assert len({entry["idempotencyKey"] for entry in entries}) == 1
    assert len({entry["signatureSha256"] for entry in entries}) == 1


async def test_signature_is_delivered_after_an_outage_of_the_card_api(open_site: OpenSite) -> None:
    """During the outage the caller gets 202 with ``Location``; the service delivers later without a new request."""
    site = await open_site(**QUICK)
    customer = await site.create_customer()
    await site.set_faults({"kind": "status", "route": "sign", "status": 503, "retry_after": 1})
    url = f"{site.base_url}/v1/customers/{customer['id']}/challenge/sign"

    async def sign() -> tuple[int, str | None, dict[str, Any]]:
        async with site.http.post(url, json={"ownerId": str(site.owner)}, headers=site.authorization) as response:
            return response.status, response.headers.get("Location"), await response.json()

    status, location, record = await repeat_while_in_progress(sign)
    assert (status, location) == (202, f"/v1/challenges/{record['id']}")
    assert record["state"] in {"signed", "forwarding"}
    await site.set_faults()
    assert (await settled(site, record["id"], within=20))["state"] == "verified"


async def test_nothing_is_signed_while_redis_hangs(open_site: OpenSite) -> None:
    """The caller gets 503 with ``Retry-After`` and the replica is not ready, until Redis works again."""
    site = await open_site(**QUICK)
    customer = await site.create_customer()
    with redis.Redis.from_url(site.redis_url) as client:
        server = int(client.info("server")["process_id"])
    url = f"{site.base_url}/v1/customers/{customer['id']}/challenge/sign"
    os.kill(server, signal.SIGSTOP)
    try:
        async with site.http.post(url, json={"ownerId": str(site.owner)}, headers=site.authorization) as response:
            problem = await response.json()
            assert (response.status, problem["code"]) in {(503, "store_unavailable"), (503, "challenge_in_progress")}
            assert int(response.headers["Retry-After"]) >= 1
        status, report = await site.get("/readyz")
        assert status == 503
        assert "store_unavailable" in json.dumps(report)
        assert (await site.ledger(customer["id"]))["entries"] == []
    finally:
        os.kill(server, signal.SIGCONT)  # then the work that the request began may go on
    await ready(site, within=20)
    await sign_and_verify(site, customer["id"])


async def test_running_request_is_completed_after_sigterm(open_site: OpenSite) -> None:
    """The replica responds and exits with 0; a second SIGTERM changes nothing."""
    site = await open_site()
    customer = await site.create_customer()
    await site.set_faults({"kind": "latency", "route": "sign", "seconds": 1.0})
    request = asyncio.create_task(site.sign(customer["id"]))
    replica = site.replicas[0].process
    await replica.wait_for("challenge.signed", 10)
    replica.signal(signal.SIGTERM)
    await replica.wait_for("service.stopping", 5)
    replica.signal(signal.SIGTERM)
    status, record = await request
    assert (status, record["state"]) == (200, "verified")
    assert await asyncio.wait_for(replica.wait(), 10) == 0
    stopped = await replica.wait_for("service.stopped", 5)
    assert stopped["left"] == 0


async def test_repeated_sigterm_does_not_kill_a_stopping_process(open_site: OpenSite) -> None:
    """Signals are ignored until the process has exited with 0."""
    site = await open_site(**QUICK)
    replica = site.replicas[0].process
    ended = asyncio.create_task(replica.wait())
    while not ended.done():
        replica.signal(signal.SIGTERM)
        await asyncio.sleep(0.0005)
    assert await ended == 0


async def test_stopping_replica_hands_an_unfinished_delivery_back(open_site: OpenSite) -> None:
    """The drain ends during a POST; another replica continues without waiting for the lease."""
    site = await open_site(
        card_api="request_timeout = 15", http="answer_within = 15\ndrain_within = 0.3", redis="lease = 60"
    )
    customer = await site.create_customer()
    await site.set_faults({"kind": "latency", "route": "sign", "seconds": 8, "times": 1})
    request = asyncio.create_task(site.sign(customer["id"]))
    stopping = site.replicas[0].process
    signed = await stopping.wait_for("challenge.signed", 10)
    stopping.signal(signal.SIGTERM)
    deferred = await stopping.wait_for("challenge.deferred", 10)
    stopped = await stopping.wait_for("service.stopped", 10)
    assert (deferred["code"], stopped["left"]) == ("handed_back", 1)
    status, shown = await request
    assert (status, shown["state"], shown["code"]) == (202, "signed", "handed_back")
    assert await asyncio.wait_for(stopping.wait(), 10) == 0
    await site.start_replica()
    record = await settled(site, signed["challenge_id"], within=20)  # the lease is 60 s
    assert record["state"] == "verified"
    assert record["attempts"] >= 2
    assert len({entry["idempotencyKey"] for entry in (await site.ledger(customer["id"]))["entries"]}) == 1


@on_shared_site
async def test_challenge_replaced_by_the_card_api_is_superseded(site: LocalSite) -> None:
    """The next request without a challenge signs the new one."""
    customer = await site.create_customer()
    async with site.http.post(f"{site.card_api}/_sim/expire/{customer['id']}") as response:
        response.raise_for_status()
    status, record = await site.sign(customer["id"], challenge=customer["challenge"])
    assert (status, record["state"], record["code"]) == (200, "superseded", "replaced_upstream")
    status, fresh = await site.sign(customer["id"])
    assert (status, fresh["state"], fresh["id"]) == (200, "verified", record["supersededBy"])


@on_shared_site
async def test_revoked_access_token_is_renewed(site: LocalSite) -> None:
    """The caller gets the verified record."""
    customer = await site.create_customer()
    async with site.http.post(f"{site.card_api}/_sim/revoke-tokens") as response:
        response.raise_for_status()
    assert (await site.sign(customer["id"]))[1]["state"] == "verified"
