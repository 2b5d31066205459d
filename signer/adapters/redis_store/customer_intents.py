"""The port ``CustomerIntents`` over Redis: one hash for each intent, on the owner's shard.

``{prefix}:{sXX}:intent:<32 hex>`` holds ``body``, ``idempotency_key``, ``created_at`` (Redis's clock, µs) and, once it
is known, ``customer_id``, which never changes. An intent is kept for ``nonce_retention`` after its last use.
"""

from __future__ import annotations

from typing import Final

from signer.adapters.redis_client.calls import MILLISECOND, RedisCalls, ReplicaWait, Script
from signer.adapters.redis_client.failures import WrongType
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.damage import DamageLog
from signer.adapters.redis_store.shard_keys import ShardKeys
from signer.domain.customer import CustomerIntent
from signer.domain.errors import MalformedRequest, RecordDamaged
from signer.domain.record import parse_customer_id

_DAMAGED: Final = (
    "What is stored about this customer is damaged, so its id is not known here. If you have the id, call POST "
    "/v1/customers/{id}/challenge/sign. The service's log names the key in Redis (store.record_damaged): delete it."
)

_STORE: Final = Script.of(
    """
-- KEYS[1] the intent    ARGV  1 retention (ms)  2 body  3 Idempotency-Key  4 the customer's id, or empty
local known = redis.call('HMGET', KEYS[1], 'created_at', 'customer_id')
if not known[1] then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'created_at', time[1] * 1000000 + time[2], 'body', ARGV[2], 'idempotency_key', ARGV[3])
end
if ARGV[4] ~= '' and not known[2] then
  known[2] = ARGV[4]
  redis.call('HSET', KEYS[1], 'customer_id', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return known[2]
""",
)


class RedisCustomerIntents:
    """The port ``CustomerIntents``. Both methods run one script, and repeating one changes nothing."""

    def __init__(self, redis: RedisCalls, settings: RedisSettings, damage_log: DamageLog) -> None:
        self._damage_log = damage_log
        self._redis = redis
        self._prefix = settings.key_prefix
        self._retention = settings.nonce_retention // MILLISECOND
        self._replica_wait = ReplicaWait(settings.wait_for_replicas, settings.wait_timeout)

    async def begin(self, intent: CustomerIntent) -> str | None:
        """See ``CustomerIntents.begin``."""
        return await self._store(intent, "")

    async def complete(self, intent: CustomerIntent, customer_id: str) -> None:
        """See ``CustomerIntents.complete``."""
        await self._store(intent, customer_id)

    async def _store(self, intent: CustomerIntent, customer_id: str) -> str | None:
        shard = ShardKeys(self._prefix, intent.id)
        key = shard.intent(intent.id)
        arguments = (self._retention, intent.body, intent.idempotency_key, customer_id)
        try:
            known, *confirmations = await self._redis.script(
                _STORE, (key,), arguments, *self._replica_wait.commands(shard.confirmation)
            )
            self._replica_wait.check(confirmations)
            return None if known is None else parse_customer_id(known.decode("ascii"))
        except (WrongType, MalformedRequest, UnicodeDecodeError):
            self._damage_log.record_damaged(key)
            raise RecordDamaged(_DAMAGED) from None
