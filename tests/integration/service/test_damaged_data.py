"""Data in Redis that was damaged or forged: nothing of it is signed or sent, callers get a code, operators an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from signer.domain.record import Submission
from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import OWNER, Site, check_waiting
from tests.support.servers import RedisServer

DOWN = Fault(FaultKind.STATUS, "sign", status=503)
JUNK = 10_000
FILL = "for number = 1, tonumber(ARGV[1]) do redis.call('ZADD', KEYS[1], number, 'junk ' .. number) end"


def index_of(record: dict[str, Any], redis: RedisServer) -> str:
    """Return the key of the index that has a record."""
    return str(redis.command("KEYS", f"*:{{s{record['id'][:2]}}}:unsettled")[0])


def key_of(record: dict[str, Any], redis: RedisServer) -> str:
    """Return the key of a record."""
    return str(redis.command("KEYS", f"*:challenge:{record['id'][2:]}")[0])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def waiting(site: Site) -> dict[str, Any]:
    """Return the record of a signature whose delivery goes on, because the card API is down."""
    site.fault(DOWN)
    return await check_waiting(await site.ask_patiently(*site.customer()))


async def delivered(site: Site, customer_id: str, challenge: str) -> None:
    """Sign a challenge and wait for the state verified: the circuit breaker may still be open."""
    record = await (await site.ask_patiently(customer_id, challenge)).json()
    assert (await site.settled(record["id"]))["state"] == "verified"


@pytest.fixture
def redis(redis: RedisServer) -> RedisServer:
    """An empty Valkey."""
    redis.command("FLUSHALL")
    return redis


@pytest.fixture
async def site(start: StartSite, redis: RedisServer) -> Site:
    """A service whose callers wait for a second."""
    return await start(http={"answer_within": 1})


async def test_damaged_record_ends_with_code_and_alarm(site: Site, redis: RedisServer) -> None:
    """GET returns a problem with its own code before and after; a claim signs nothing; recovery goes on."""
    record = await waiting(site)
    redis.command("HSET", key_of(record, redis), "owner", "garbage")
    await until(lambda: redis.command("HGET", key_of(record, redis), "code") == "record_damaged")
    assert not redis.command("KEYS", "*:unsettled")
    path = f"/v1/challenges/{record['id']}"
    problem = await site.get(path)
    assert (problem["status"], problem["code"]) == (500, "record_damaged")
    assert "Get a new challenge" in problem["detail"]
    line = await site.logged("store.record_damaged")
    assert (line["level"], line["redis_key"]) == ("error", key_of(record, redis))
    sent = site.simulator.state.ledger.outcomes("sign")
    site.calm()
    await delivered(site, *site.customer())
    assert site.simulator.state.ledger.outcomes("sign") == sent | {"204": 1}
    assert not site.log.of("http.unexpected_error", "recovery.unexpected_error")


async def test_forged_body_is_not_sent(site: Site, redis: RedisServer) -> None:
    """It has a second challenge in front. The record ends as ``signature_damaged`` and shows no other signature.

    Deliveries fail until then: an attempt that has read the genuine body may be in flight while it is forged.
    """
    record = await waiting(site)
    key = key_of(record, redis)
    genuine = redis.command("HGET", key, "submission")
    forged = '{"challenge":"Zm9yZ2Vk",' + genuine[1:]
    redis.command("HSET", key, "submission", forged)
    settled = await site.settled(record["id"])
    assert (settled["state"], settled["code"], settled["signature"]) == ("rejected", "signature_damaged", None)
    of_genuine, of_forged = (Submission(body.encode(), "").idempotency_key for body in (genuine, forged))
    assert of_forged not in site.log.text
    assert {entry.idempotency_key for entry in site.simulator.state.ledger.entries()} == {of_genuine}


async def test_ten_thousand_junk_members_are_removed_while_others_are_recovered(site: Site, redis: RedisServer) -> None:
    """The owner's own shard is the one with the junk, in front of its challenge."""
    record = await waiting(site)
    redis.command("EVAL", FILL, 1, index_of(record, redis), JUNK)
    site.calm()
    assert (await site.settled(record["id"]))["state"] == "verified"
    await until(lambda: sum(line["count"] for line in site.log.of("store.junk_removed")) == JUNK)
    assert len(site.log.of("store.junk_removed")) <= JUNK // 1000
    assert not redis.command("KEYS", "*:unsettled")
    assert not site.log.of("recovery.unexpected_error")


async def test_index_of_another_type_is_an_alarm_and_its_owners_get_503(site: Site, redis: RedisServer) -> None:
    """Readiness is not affected: other shards work. When the key is deleted, its owners can sign again."""
    record = await waiting(site)
    index = index_of(record, redis)
    redis.command("SET", index, "garbage")
    line = await site.logged("store.indexes_failed")
    assert (line["level"], line["redis_keys"]) == ("error", [index])
    customer = site.customer()
    response = await site.ask_patiently(*customer)
    problem = await response.json()
    assert (response.status, problem["code"]) == (503, "store_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    redis.command("DEL", index)
    site.calm()
    await delivered(site, *customer)
    assert len(site.log.of("store.indexes_failed")) == 1
    assert not site.log.of("http.unexpected_error", "recovery.unexpected_error")


async def test_damaged_intent_is_a_problem_of_its_own(start: StartSite, redis: RedisServer) -> None:
    """The customer's id is garbage: the problem says what to do, and the log names the key."""
    site = await start()
    body = {"chainId": OWNER, "externalId": "alice", "ownerId": OWNER}
    headers = {"Authorization": f"Bearer {site.token}"}
    async with site.client.post("/v1/customers", json=body, headers=headers) as response:
        assert response.status == 201
    [key] = redis.command("KEYS", "*:intent:*")
    redis.command("HSET", key, "customer_id", "../garbage")
    async with site.client.post("/v1/customers", json=body, headers=headers) as response:
        problem = await response.json()
    assert (response.status, problem["code"]) == (500, "record_damaged")
    assert (await site.logged("store.record_damaged"))["redis_key"] == key
