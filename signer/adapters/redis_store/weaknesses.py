"""What in the servers' own settings breaks the promises of the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from signer.adapters.redis_client.calls import NO_WAIT, RedisCalls, ReplicaWait

_LOOK: Final = (("INFO", "memory"), ("INFO", "persistence"), ("INFO", "replication"))


async def find_weaknesses(redis: RedisCalls, replica_wait: ReplicaWait = NO_WAIT) -> tuple[str, ...]:
    """Name them, over all primaries, one sentence each.

    Args:
        redis: the store.
        replica_wait: how many replicas are waited for.

    Raises:
        Unavailable: ``store_unavailable``.
    """
    told = await redis.every_primary(_LOOK)
    found = [weakness for infos in told for weakness in _of_primary(infos, replica_wait.replicas)]
    uncovered = await redis.uncovered_slots()
    if uncovered:
        found.append(
            f"{uncovered} slots of the Redis cluster have no primary: the owners whose shards are among them get 503. "
            "Unless cluster-require-full-coverage is no, all do.",
        )
    return tuple(dict.fromkeys(found))


def _of_primary(infos: Sequence[Mapping[str, Any]], wait_for: int) -> Iterator[str]:
    memory, persistence, replication = infos
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction":
        yield (
            f"Redis may evict records (maxmemory-policy {policy}), and an evicted nonce can be signed again: "
            "set maxmemory-policy noeviction."
        )
    if not persistence.get("aof_enabled"):
        yield (
            "Redis writes no append-only file, so a restart forgets nonces, which can then be signed again: "
            "set appendonly yes."
        )
    replicas = int(replication.get("connected_slaves", 0))
    if replicas and not wait_for:
        yield (
            "Redis has replicas, and none is waited for: a failover forgets what was not replicated yet, also nonces. "
            f"Set redis.wait_for_replicas = {replicas}."
        )
    elif replicas < wait_for:
        yield (
            f"Redis has {replicas} replicas, and redis.wait_for_replicas = {wait_for}: "
            "nothing is signed until that many follow."
        )
    elif replicas > wait_for > 0:
        yield (
            f"Redis has {replicas} replicas, and redis.wait_for_replicas = {wait_for}: a failover may promote one that "
            "has not confirmed, and forget nonces. Wait for all of them, or see docs/redis.md."
        )
