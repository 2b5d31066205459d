"""Settings of the Redis servers that break the store's guarantees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, Self

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.query import parse_info
from signer.domain.errors import Unavailable

_QUERY: Final = (("INFO", "memory"), ("INFO", "persistence"), ("INFO", "replication"))


Topic = Literal["eviction", "persistence", "replicas", "slots"]


class Weakness(str):
    """One sentence: what is wrong, then what to do. ``topic`` is what it is about."""

    __slots__ = ("topic",)
    topic: Topic

    def __new__(cls, topic: Topic, text: str) -> Self:
        """Create it."""
        weakness = super().__new__(cls, text)
        weakness.topic = topic
        return weakness


async def find_weaknesses(redis: RedisCalls, wait_for_replicas: int) -> tuple[Weakness, ...]:
    """Return one sentence for each weakness of any primary; raise ``Unavailable``."""
    try:
        responses = await redis.every_primary(_QUERY)
    except Unavailable as error:
        if error.cause != "permission":
            raise
        return (Weakness("persistence", f"Redis does not show its configuration. {error.detail}"),)
    found = [weakness for infos in responses for weakness in _of_primary(infos, wait_for_replicas)]
    uncovered = await redis.uncovered_slots()
    if uncovered:
        found.append(
            Weakness(
                "slots",
                f"{uncovered} slots of the Redis cluster have no primary, so owners whose shards are there get 503 "
                "(all owners, unless cluster-require-full-coverage is no): assign the slots to a primary.",
            ),
        )
    return tuple(dict.fromkeys(found))


def _of_primary(infos: Sequence[bytes], wait_for: int) -> Iterator[Weakness]:
    memory, persistence, replication = map(parse_info, infos)
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction":
        yield Weakness(
            "eviction",
            f"Redis may evict records (maxmemory-policy {policy}), and an evicted nonce can be signed again: "
            "set maxmemory-policy noeviction.",
        )
    if persistence.get("aof_enabled") != "1":
        yield Weakness(
            "persistence",
            "Redis writes no append-only file, so a restart forgets nonces, which can then be signed again: "
            "set appendonly yes.",
        )
    replicas = int(replication.get("connected_slaves", 0))
    if replicas and not wait_for:
        yield Weakness(
            "replicas",
            "Redis has replicas, and the service waits for none: a failover forgets nonces that were not replicated "
            f"yet. Set redis.wait_for_replicas = {replicas}.",
        )
    elif replicas < wait_for:
        yield Weakness(
            "replicas",
            f"Redis has {replicas} replicas, and redis.wait_for_replicas = {wait_for}: nothing is signed until that "
            "many are connected.",
        )
    elif replicas > wait_for > 0:
        yield Weakness(
            "replicas",
            f"Redis has {replicas} replicas, and redis.wait_for_replicas = {wait_for}: a failover may promote one that "
            f"has not confirmed, and forget nonces. Set redis.wait_for_replicas = {replicas}; see docs/redis.md.",
        )
