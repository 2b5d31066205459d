"""Asks Redis and the card API whether the service could work with its settings: ``config check --online``."""

from __future__ import annotations

import uuid

from signer.adapters.clock import SystemClock
from signer.adapters.redis_client.calls import ReplicaWait
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.bootstrap.card_api import open_card_api
from signer.config.settings import Settings
from signer.domain.errors import NotFound, SignerError
from signer.observability.writers import StructlogDamageLog


async def find_unreachable(settings: Settings) -> list[str]:
    """Return one line for each server that does not do what the service needs."""
    return [*await _ask_redis(settings), *await _ask_card_api(settings)]


async def _ask_redis(settings: Settings) -> list[str]:
    """Read as readiness does, and write a key that soon expires, to as many replicas as a claim needs."""
    redis = await open_redis(settings.redis)
    key = f"{settings.redis.key_prefix}:config-check"
    try:
        store = RedisChallengeStore(
            redis, settings.redis, max_age=settings.policy.max_age, damage_log=StructlogDamageLog()
        )
        await store.ping()
        replicas = ReplicaWait(settings.redis.wait_for_replicas, settings.redis.wait_timeout)
        _, *confirmations = await redis.commands([("SET", key, "", "PX", 1), *replicas.commands(key)], key=key)
        replicas.check(confirmations)
    except SignerError as error:
        return [f"redis: {error.detail}"]
    finally:
        await redis.close()
    return []


async def _ask_card_api(settings: Settings) -> list[str]:
    """Get a token, and read a customer that does not exist: only a valid request signature gets a 404."""
    timeout = settings.card_api.request_timeout
    try:
        async with open_card_api(settings.card_api, SystemClock()) as card_api:
            await card_api.client.authenticate(timeout=timeout)
            await card_api.client.customer_status(str(uuid.uuid4()), timeout=timeout)
    except NotFound:
        return []
    except (RequestKeyError, SignerError) as error:
        return [f"card_api: {error.detail if isinstance(error, SignerError) else error}"]
    return []
