"""The contract of ``CustomerIntents``, on the fake and on a real Valkey with the rights of docs/redis.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from signer.adapters.redis_client.opening import ACL_COMMANDS, open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.customer_intents import RedisCustomerIntents
from signer.application.ports import CustomerIntents
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from tests.support.fakes.customer_intents import FakeCustomerIntents
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.servers import RedisServer, valkey

OWNER = AccountId.parse("eip155:324:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
INTENT = CustomerIntent(OWNER, "alice", OWNER)
OTHER = CustomerIntent(OWNER, "bob", OWNER)
CUSTOMER = "0191b1d6-4a4e-7c8e-9d4d-1a2b3c4d5e6f"
RETENTION = RedisSettings().nonce_retention


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Valkey with a user that has only the documented rights."""
    with valkey() as server:
        server.command("ACL", "SETUSER", "signer", "on", ">secret", "resetkeys", "~signer:*", "-@all", *ACL_COMMANDS)
        yield server


@pytest.fixture(params=["fake", "valkey"])
async def intents(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CustomerIntents]:
    """The fake or the real one."""
    if request.param == "fake":
        yield FakeCustomerIntents()
        return
    server: RedisServer = request.getfixturevalue("server")
    (tmp_path / "password").write_text("secret")
    settings = RedisSettings(url=server.tcp_url, username="signer", password_file=tmp_path / "password")
    redis = await open_redis(settings)
    yield RedisCustomerIntents(redis, settings, FakeDamageLog())
    await redis.close()


async def test_new_intent_has_no_customer(intents: CustomerIntents) -> None:
    """Also when it is stored again."""
    assert await intents.begin(INTENT) is None
    assert await intents.begin(INTENT) is None


async def test_begin_returns_customer_after_complete(intents: CustomerIntents) -> None:
    """For that intent only; completing it again is no error."""
    await intents.begin(INTENT)
    await intents.complete(INTENT, CUSTOMER)
    await intents.complete(INTENT, CUSTOMER)
    assert await intents.begin(INTENT) == CUSTOMER
    assert await intents.begin(OTHER) is None


async def test_stored_customer_id_never_changes(intents: CustomerIntents) -> None:
    """The first id stays."""
    await intents.begin(INTENT)
    await intents.complete(INTENT, CUSTOMER)
    await intents.complete(INTENT, CUSTOMER.replace("0191", "0192"))
    assert await intents.begin(INTENT) == CUSTOMER


async def test_intent_is_stored_on_its_owners_shard_for_the_retention(server: RedisServer) -> None:
    """One hash under the owner's tag, with a time to live and the request to send."""
    settings = RedisSettings(url=server.url)
    redis = await open_redis(settings)
    await RedisCustomerIntents(redis, settings, FakeDamageLog()).begin(INTENT)
    key = f"signer:{{s{INTENT.id[:2]}}}:intent:{INTENT.id[2:]}"
    fields = await redis.command("HMGET", key, "body", "idempotency_key")
    assert fields == [INTENT.body, INTENT.idempotency_key.encode()]
    remaining = await redis.command("PTTL", key)
    assert RETENTION - timedelta(minutes=1) < timedelta(milliseconds=remaining) <= RETENTION
    await redis.close()


async def test_begin_raises_unavailable_when_store_is_down(server: RedisServer) -> None:
    """It does not return ``None``."""
    settings = RedisSettings(url=server.url)
    redis = await open_redis(settings)
    server.stop()
    with pytest.raises(Unavailable) as refused:
        await RedisCustomerIntents(redis, settings, FakeDamageLog()).begin(INTENT)
    assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
    await redis.close()
