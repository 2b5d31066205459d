"""The checks of Redis."""

from __future__ import annotations

import ssl
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from signer.adapters.clock import SystemClock
from signer.adapters.redis_client.calls import RedisCalls, ReplicaWait
from signer.adapters.redis_client.connections import TlsConnection
from signer.adapters.redis_client.opening import connection_to, open_redis
from signer.adapters.redis_client.query import parse_info
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.urls import Address, Deployment
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.rights import FOR_CHECKS_ONLY, missing_rights
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.bootstrap.doctor.findings import Part, Report, Result
from signer.bootstrap.doctor.network import check_address, check_tls
from signer.config.settings import Settings
from signer.domain.errors import Unavailable
from signer.observability.writers import DamageLogLines

_OLDEST_MAJOR: Final = 7
_CALLS: Final = 5
_SLOW_MILLISECONDS: Final = 20.0
_NEARLY_FULL: Final = 0.9
_INFO: Final = (("INFO", "server"), ("INFO", "replication"), ("INFO", "memory"), ("INFO", "persistence"))
_ABOUT_INFO: Final = ("server", "persistence", "eviction", "replicas")
_TLS_ACTION: Final = (
    "Name the server's CA in redis.ca_file, and the server as its certificate does in redis.url; if its port expects "
    "no TLS, begin redis.url with redis."
)


def redis_part(settings: Settings) -> Part:
    """Return the part for these settings."""
    url = settings.redis.parsed_url
    tls = ("tls",) if url.tls else ()
    topology = () if url.deployment is Deployment.SINGLE else ("topology",)
    checks = ("address", *tls, *topology, "login", "rights", *_ABOUT_INFO, "writes", "latency", "clock")
    return Part("redis", checks, _check, sections=frozenset({"redis"}))


async def _check(settings: Settings, report: Report) -> None:
    section = settings.redis
    url = section.parsed_url
    if url.addresses:
        address = await check_address(report, url.addresses, "redis.url")
        if address is None or (url.tls and not await _check_tls(section, address, report)):
            return
    else:
        report.ok("address", f"the Unix socket {url.socket}")
    redis = await open_redis(section)
    try:
        if await _check_login(section, redis, report):
            await _check_server(settings, redis, report)
    finally:
        await redis.close()


async def _check_tls(settings: RedisSettings, address: Address, report: Report) -> bool:
    kind, arguments = connection_to(settings, address)
    connection = kind(**arguments)
    assert isinstance(connection, TlsConnection)  # noqa: S101 - redis.url has TLS
    try:
        context = connection.ssl_context.get()
    except ssl.SSLError as error:
        report.failed("tls", str(error.args[0]), "Check redis.ca_file, redis.cert_file and redis.key_file.", "tls")
        return False
    return await check_tls(report, address, context, _TLS_ACTION)


async def _check_login(settings: RedisSettings, redis: RedisCalls, report: Report) -> bool:
    url, check = settings.parsed_url, "login"
    try:
        if url.deployment is not Deployment.SINGLE:
            check = "topology"
            primaries, uncovered = await redis.primaries(), await redis.uncovered_slots()
            if uncovered:
                report.failed(
                    check, f"{uncovered} slots have no primary", "Assign the slots to a primary.", "unreachable"
                )
            else:
                report.ok(check, f"primary: {', '.join(primaries)}")
        check = "login"
        await redis.command("TIME")  # signing needs this right, and not that of PING
    except Unavailable as error:
        report.says(check, error.detail, error.cause)
        return False
    report.ok(check, f"as user {settings.username or 'default'}, database {url.database}")
    return True


async def _check_server(settings: Settings, redis: RedisCalls, report: Report) -> None:
    missing: set[str] = set()
    for name, check in {"rights": _check_rights, "writes": _check_writes, "latency": _check_speed_and_clock}.items():
        try:
            missing |= await check(settings, redis, report) or set()
        except Unavailable as error:
            report.says(name, f"{error.place}: {error.detail}" if error.place else error.detail, error.cause)
    if "+info" in missing:
        for name in _ABOUT_INFO:
            report.skipped(name, "the user may not run INFO")
        return
    try:
        await _check_info(settings, redis, report)
    except Unavailable as error:
        report.says("server", error.detail, error.cause)


# --- What the user may do, and how fast -------------------------------------------------------------------------------


async def _check_rights(settings: Settings, redis: RedisCalls, report: Report) -> set[str]:
    """Return the rights that the user lacks."""
    section = settings.redis
    lacking = await missing_rights(redis, section, "00")
    if not lacking:
        report.ok("rights", f"all commands are allowed on {section.key_prefix}:*")
        return set()
    user, rights = section.username or "default", " ".join(lacking)
    found, action = f"the ACL of user {user} lacks {rights}", f"ACL SETUSER {user} {rights}"
    if FOR_CHECKS_ONLY.issuperset(lacking):
        report.warning("rights", f"{found}: all can be signed and delivered, but not all checks be made", action)
    else:
        report.failed("rights", found, action, "permission")
    return set(lacking)


async def _check_writes(settings: Settings, redis: RedisCalls, report: Report) -> None:
    """Write as readiness does, and a key that soon expires, to as many replicas as a claim needs."""
    section = settings.redis
    key = f"{section.key_prefix}:doctor"
    max_age = settings.policy.max_age
    await RedisChallengeStore(redis, section, max_age=max_age, damage_log=DamageLogLines()).ping()
    replicas = ReplicaWait(section.wait_for_replicas, section.wait_timeout)
    _, *confirmations = await redis.commands([("SET", key, "", "PX", 1), *replicas.commands(key)], key=key)
    replicas.check(confirmations)
    confirmed = f", confirmed by {confirmations[-1]} replicas" if confirmations else ""
    report.ok("writes", f"the scripts run and write{confirmed}")


async def _check_speed_and_clock(_settings: Settings, redis: RedisCalls, report: Report) -> None:
    durations: list[float] = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        await redis.command("TIME")
        durations.append((time.perf_counter() - started) * 1000)
    median = statistics.median(durations)
    if median > _SLOW_MILLISECONDS:
        action = "Run Redis near the service: a challenge needs several calls one after the other."
        report.warning("latency", f"{median:.1f} ms (median of {_CALLS} calls)", action)
    else:
        report.ok("latency", f"{median:.1f} ms (median of {_CALLS} calls)")
    clock = SystemClock()
    before = clock.now().timestamp()
    with suppress(Unavailable):  # the right to run TIME is another check
        seconds, microseconds = await redis.command("TIME")
        report.clock("clock", int(seconds) + int(microseconds) / 1e6 - (before + clock.now().timestamp()) / 2)


# --- How the server is configured -------------------------------------------------------------------------------------


async def _check_info(settings: Settings, redis: RedisCalls, report: Report) -> None:
    infos = [[parse_info(info) for info in node] for node in await redis.every_primary(_INFO)]
    for server, replication, memory, persistence in infos:
        judge_server(server, replication, report)
        if persistence.get("aof_last_write_status", "ok") != "ok":
            report.failed(
                "persistence", "the last write of the append-only file failed", "Check the server's disk.", "full"
            )
        _judge_memory(memory, report)
    wait_for = settings.redis.wait_for_replicas
    weaknesses = [each for each in await find_weaknesses(redis, wait_for) if each.topic != "slots"]
    for weakness in weaknesses:
        report.says(weakness.topic, weakness, "configuration", Result.WARNING)
    weak = {weakness.topic for weakness in weaknesses}
    [fsync] = await redis.try_commands([("CONFIG", "GET", "appendfsync")])
    how = fsync[1].decode() if isinstance(fsync, list) and fsync else None
    if how == "no":
        found = "appendfsync no, so a crash of the machine forgets the nonces of up to 30 s"
        report.warning("persistence", found, "Set appendfsync everysec, or always.")
    made = {finding.check for finding in report.findings}
    if "persistence" not in made:
        may_not = "which the user may not read (CONFIG GET)" if how is None else how
        report.ok("persistence", f"an append-only file; appendfsync {may_not}")
    if "eviction" not in made:
        report.ok("eviction", f"maxmemory-policy noeviction; {_memory(infos)}")
    if "replicas" not in weak:
        report.ok(
            "replicas", f"{infos[0][1].get('connected_slaves', 0)} connected; redis.wait_for_replicas = {wait_for}"
        )


def judge_server(server: Mapping[str, str], replication: Mapping[str, str], report: Report) -> None:
    """Add what kind of server it is, by its responses to ``INFO``."""
    is_valkey = "valkey_version" in server
    version = server.get("redis_version", "0")
    name = f"Valkey {server['valkey_version']}" if is_valkey else f"Redis {version}"
    if int(version.partition(".")[0]) < _OLDEST_MAJOR:
        report.failed(
            "server", f"{name} is too old", f"Use Redis {_OLDEST_MAJOR} or newer, or Valkey.", "configuration"
        )
    elif replication.get("role") != "master":
        action = "Name the primary in redis.url, or use redis+sentinel://."
        report.failed("server", f"{name} is a read-only replica", action, "read_only")
    else:
        report.ok("server", f"{name}, a primary")


def _judge_memory(memory: Mapping[str, str], report: Report) -> None:
    used, limit = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
    if limit and used >= _NEARLY_FULL * limit:
        found = f"{used / limit:.0%} of maxmemory is used"
        report.warning("eviction", found, "Raise maxmemory, or lower redis.nonce_retention.")


def _memory(infos: Sequence[Sequence[Mapping[str, str]]]) -> str:
    """Return how much memory is used, of the server with the least free."""
    shares = [(int(each[2].get("used_memory", 0)), int(each[2].get("maxmemory", 0))) for each in infos]
    used, limit = max(shares, key=lambda share: share[0] / share[1] if share[1] else 0.0)
    return f"{used >> 20} MiB used{f' of {limit >> 20} MiB' if limit else ', without a maxmemory'}"
