"""What the ACL of the service's user lacks.

The user may not ask what it may do, so each command is tried. The scripts do not show it: not every release of Redis
names the command that a script may not run, and scripts that are cached do not need ``+eval``, until Redis restarts.
"""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import RedisError

from signer.adapters.redis_client.calls import RedisCalls, Script
from signer.adapters.redis_client.failures import error_code, forbidden_command
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.shared_connection import Command
from signer.adapters.redis_client.urls import Deployment
from signer.adapters.redis_store.shard_keys import ShardKeys
from signer.domain.errors import ErrorCode, Unavailable

FOR_CHECKS_ONLY: Final = frozenset({"+info", "+ping"})
"""Rights without which everything can be signed and delivered."""
_NO_OP: Final = Script.of("return 1")


def tried_commands(keys: ShardKeys, *, waits: bool, is_cluster: bool) -> dict[str, Command]:
    """Return a harmless call of each command that the service needs, by its name in an ACL."""
    record, index, pointer = keys.probes
    commands: dict[str, Command] = {}
    if waits:  # not at the end, where a node takes it for a confirmation
        commands["wait"] = ("WAIT", 0, 1)
    if is_cluster:
        commands |= {"cluster|info": ("CLUSTER", "INFO"), "cluster|slots": ("CLUSTER", "SLOTS"), "asking": ("ASKING",)}
    return commands | {
        "ping": ("PING",),
        "info": ("INFO", "server"),
        "time": ("TIME",),
        "eval": ("EVAL", _NO_OP.source, 1, record),
        "evalsha": ("EVALSHA", _NO_OP.sha1, 1, record),
        "hset": ("HSET", record, "probe", 1),
        "hmget": ("HMGET", record, "probe"),
        "pexpire": ("PEXPIRE", record, 1),
        "hdel": ("HDEL", record, "probe"),
        "set": ("SET", pointer, "probe", "PX", 1),
        "get": ("GET", pointer),
        "zadd": ("ZADD", index, 1, "probe"),
        "zrangebyscore": ("ZRANGEBYSCORE", index, "-inf", 1, "LIMIT", 0, 1),
        "zrem": ("ZREM", index, "probe"),
    }


async def missing_rights(redis: RedisCalls, settings: RedisSettings, shard: str, *, patient: bool = True) -> list[str]:
    """Return what the ACL lacks on a shard, in the words of ``ACL SETUSER``; raise ``Unavailable``."""
    keys = ShardKeys(settings.key_prefix, shard)
    is_cluster = settings.parsed_url.deployment is Deployment.CLUSTER
    tried = tried_commands(keys, waits=settings.wait_for_replicas > 0, is_cluster=is_cluster)
    responses = await redis.try_commands(list(tried.values()), key=keys.probes[0], patient=patient)
    refusals = {name: each for name, each in zip(tried, responses, strict=True) if _is_forbidden(each)}
    commands = sorted(f"+{name}" for name, each in refusals.items() if forbidden_command(each) is not None)
    return [*commands, *([f"~{settings.key_prefix}:*"] if len(commands) < len(refusals) else [])]


async def check_rights(redis: RedisCalls, settings: RedisSettings, shard: str, *, patient: bool = True) -> None:
    """Raise ``Unavailable``, with what is missing, if the ACL lacks a right that signing needs."""
    missing = await missing_rights(redis, settings, shard, patient=patient)
    lacking = [right for right in missing if right not in FOR_CHECKS_ONLY]
    if lacking:
        detail = f"The store's ACL lacks {' '.join(lacking)}, which the signer needs; see docs/redis.md."
        raise Unavailable(ErrorCode.STORE_UNAVAILABLE, detail, cause="permission")


def _is_forbidden(response: Any) -> bool:  # noqa: ANN401 - any response
    return isinstance(response, RedisError) and error_code(response) == "NOPERM"
