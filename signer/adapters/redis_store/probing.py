"""Readiness's check of the store: write to every primary as a claim does.

A cluster has several. Each is probed each time, so that the result is the same while one of them fails. It takes less
time than readiness waits, so that the one that hangs can be named.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from signer.adapters.redis_client.calls import RedisCalls, ReplicaWait
from signer.adapters.redis_client.failures import error_code
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store import scripts
from signer.adapters.redis_store.rights import check_rights
from signer.adapters.redis_store.shard_keys import ShardKeys
from signer.domain.errors import ErrorCode, PartlyUnavailable, Unavailable
from signer.domain.record import SHARDS

_ARGUMENT: Final = b"x" * (128 << 10)
"""Longer than every submission: Redis counts the memory of a request too, so a nearly full one
refuses the probe before it refuses a move."""
_PRIMARY_WITHIN: Final = 1.3
"""Seconds, of one of several primaries."""
_RANDOM: Final = secrets.SystemRandom()


async def probe(redis: RedisCalls, settings: RedisSettings) -> None:
    """Probe every primary, each on one of its shards.

    Raises:
        PartlyUnavailable: some fail, ``place``, and the shards of the others can be used.
        Unavailable: all fail.
    """
    numbers = [f"{shard:02x}" for shard in range(SHARDS)]
    groups = await redis.group_by_node([ShardKeys(settings.key_prefix, number).index for number in numbers])
    probed = [numbers[_RANDOM.choice(group)] for group in groups]
    if len(probed) == 1:
        await _probe(redis, settings, probed[0])
        return
    results = await asyncio.gather(*(_problem(redis, settings, number) for number in probed))
    failing = [(number, error) for number, error in zip(probed, results, strict=True) if error is not None]
    kind = PartlyUnavailable if len(failing) < len(probed) else Unavailable
    # If a node is down, the others may say that the cluster is: that does not show which.
    failing = [each for each in failing if not _blames_the_cluster(each[1])] or failing
    if failing:
        places = (redis.address_of(ShardKeys(settings.key_prefix, number).index) for number, _ in failing)
        error = failing[0][1]
        detail = f"Of {len(probed)} primaries of the store's cluster, {len(failing)} cannot be used: {error.detail}"
        if kind is Unavailable and len(failing) < len(probed):
            detail = f"A primary of the store's cluster fails, and the cluster accepts no calls: {error.detail}"
        raise kind(error.code, detail, cause=error.cause, place=", ".join(filter(None, places)))


async def _problem(redis: RedisCalls, settings: RedisSettings, number: str) -> Unavailable | None:
    try:
        async with asyncio.timeout(_PRIMARY_WITHIN):
            await _probe(redis, settings, number, patient=False)
    except TimeoutError:
        detail = f"no response within {_PRIMARY_WITHIN:g} s."
        return Unavailable(ErrorCode.STORE_UNAVAILABLE, detail, cause="timeout")
    except Unavailable as error:
        return error
    return None


async def _probe(redis: RedisCalls, settings: RedisSettings, number: str, *, patient: bool = True) -> None:
    await check_rights(redis, settings, number, patient=patient)
    shard = ShardKeys(settings.key_prefix, number)
    replicas = ReplicaWait(settings.wait_for_replicas, settings.wait_timeout)
    confirmation = replicas.commands(shard.confirmation)
    _, *confirmations = await redis.script(scripts.PROBE, shard.probes, (_ARGUMENT,), *confirmation, patient=patient)
    replicas.check(confirmations)


def _blames_the_cluster(error: Unavailable) -> bool:
    return isinstance(error.__cause__, Exception) and error_code(error.__cause__) == "CLUSTERDOWN"
