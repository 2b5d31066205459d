"""``signer doctor`` names each failure of Redis, with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from signer.adapters.redis_client.opening import ACL_COMMANDS, CLUSTER_ACL_COMMANDS
from signer.adapters.redis_store.rights import tried_commands
from signer.adapters.redis_store.shard_keys import ShardKeys
from signer.bootstrap.doctor import redis
from tests.integration.cli.installation import Installation, assert_failed
from tests.support.certificates import CertificateAuthority
from tests.support.servers import RedisServer, debian_redis, valkey
from tests.support.topologies import SERVICE, cluster_site, sentinel_site

USER: Final = "a password of redis"
RIGHTS: Final = ("resetkeys", "~signer:*", "resetchannels", "-@all", *ACL_COMMANDS)

PATIENT: Final = {"command_timeout": 10, "wait_timeout": 8}
"""For a busy machine: a replica may be slow."""

Break = Callable[[Installation, RedisServer], object]


def use_user(site: Installation, server: RedisServer, *rights: str, password: str = USER) -> None:
    """Log in as a user with these rights."""
    server.command("ACL", "SETUSER", "signer", "reset", "on", f">{USER}", *rights)
    write_password(site, password)


def write_password(site: Installation, password: str) -> None:
    """Write the password of the user signer, and name it in the settings."""
    (site.folder / "redis-password").write_text(password)
    (site.folder / "redis-password").chmod(0o600)
    site.settings["redis"] |= {"username": "signer", "password_file": str(site.folder / "redis-password")}


def wait_without_right(site: Installation, server: RedisServer) -> None:
    """Wait for a replica as a user that may not."""
    use_user(site, server, *RIGHTS, "-wait", "-zadd")
    site.settings["redis"]["wait_for_replicas"] = 1


def change(name: str, value: object) -> Break:
    """Return what changes a setting of ``[redis]``."""
    return lambda site, _server: site.settings["redis"].update({name: value})


def configure(name: str, value: str) -> Break:
    """Return what changes the server's own configuration."""
    return lambda _site, server: server.command("CONFIG", "SET", name, value)


BROKEN_REDIS: Final[dict[str, tuple[Break, int, str, str, str, str]]] = {
    "down": (change("url", "redis://127.0.0.1:1"), 1, "address", "failed", "refuses the connection", "redis.url"),
    "expects-no-tls": (
        lambda site, server: change("url", server.tls_url)(site, server),
        *(1, "tls", "failed", "does not finish the TLS handshake", "begin redis.url with redis"),
    ),
    "password": (
        lambda site, server: use_user(site, server, *RIGHTS, password="another"),
        *(1, "login", "failed", "refused the user or the password", "the password file"),
    ),
    "database": (
        lambda site, server: change("url", f"{server.tcp_url}/99")(site, server),
        *(1, "login", "failed", "no database of this number", "correct redis.url"),
    ),
    "right": (
        lambda site, server: use_user(site, server, *RIGHTS, "-wait", "-hdel", "-zrem"),
        *(1, "rights", "failed", "the ACL of user signer lacks +hdel +zrem", "ACL SETUSER signer +hdel +zrem"),
    ),
    "wait": (
        wait_without_right,
        *(1, "rights", "failed", "the ACL of user signer lacks +wait +zadd", "ACL SETUSER signer +wait +zadd"),
    ),
    "keys": (
        lambda site, server: use_user(site, server, *RIGHTS, "resetkeys", "~another:*"),
        *(1, "rights", "failed", "lacks ~signer:*", "ACL SETUSER signer ~signer:*"),
    ),
    "info": (
        lambda site, server: use_user(site, server, *RIGHTS, "-info"),
        *(0, "server", "skipped", "the user may not run INFO", ""),
    ),
    "full": (configure("maxmemory", "1"), 1, "writes", "failed", "The store is full", "raise its maxmemory"),
    "nearly-full": (configure("maxmemory", "1"), 1, "eviction", "warning", "of maxmemory is used", "nonce_retention"),
    "evicts": (
        configure("maxmemory-policy", "allkeys-lru"),
        *(0, "eviction", "warning", "maxmemory-policy allkeys-lru", "set maxmemory-policy noeviction"),
    ),
    "no-file": (configure("appendonly", "no"), 0, "persistence", "warning", "no append-only file", "appendonly yes"),
    "no-fsync": (configure("appendfsync", "no"), 0, "persistence", "warning", "appendfsync no", "everysec"),
    "replicas": (
        change("wait_for_replicas", 1),
        *(1, "writes", "failed", "Too few replicas of the store confirmed", ""),
    ),
    "too-few": (change("wait_for_replicas", 1), 1, "replicas", "warning", "Redis has 0 replicas", "until that many"),
}
CAUSES_OF_REDIS: Final = {
    "down": "unreachable",
    "expects-no-tls": "timeout",
    "password": "authentication",
    "database": "wrong_database",
    "right": "permission",
    "wait": "permission",
    "keys": "permission",
    "full": "full",
    "replicas": "replication",
}


@pytest.mark.parametrize("name", BROKEN_REDIS)
async def test_doctor_names_what_is_wrong_with_redis(name: str, site: Installation, server: RedisServer) -> None:
    """The card API is examined all the same; what depends on the failed check is skipped."""
    harm, status, check, result, text, action = BROKEN_REDIS[name]
    before = {key: server.command("CONFIG", "GET", key)[key] for key in ("maxmemory", "maxmemory-policy")}
    try:
        harm(site, server)
        found = await site.findings(status)
    finally:
        for key, value in {**before, "appendonly": "yes", "appendfsync": "everysec"}.items():
            server.command("CONFIG", "SET", key, value)
    assert_failed(found[f"redis {check}"], result, text, action, CAUSES_OF_REDIS.get(name))
    assert found["card_api request_signature"]["result"] == "ok"
    if check in {"address", "login", "tls"}:
        assert found["redis writes"]["found"] == f"{check} failed"
        assert found["redis clock"]["result"] == "skipped"


async def test_right_that_only_checks_need_is_a_warning(site: Installation, server: RedisServer) -> None:
    """The service signs and delivers without it."""
    use_user(site, server, *RIGHTS, "-ping", "-info")
    found = await site.findings(0)
    assert_failed(found["redis rights"], "warning", "lacks +info +ping", "ACL SETUSER")
    assert found["redis login"]["result"] == found["redis writes"]["result"] == "ok"
    assert found["redis server"]["result"] == "skipped"


async def test_doctor_names_read_only_replica(site: Installation, server: RedisServer) -> None:
    """Its role, and the write that it refuses."""
    with valkey() as replica:
        replica.follow(server)
        site.settings["redis"]["url"] = replica.tcp_url
        found = await site.findings(1)
    assert_failed(found["redis server"], "failed", "is a read-only replica", "Name the primary in redis.url")
    assert_failed(found["redis writes"], "failed", "The store is a read-only replica", "connect to the primary")


async def test_doctor_names_redis_that_hangs(site: Installation, server: RedisServer) -> None:
    """It accepts connections and responds to nothing."""
    site.settings["redis"] |= {"connect_timeout": 0.5, "command_timeout": 0.5}
    server.pause()
    try:
        found = await site.findings(1)
    finally:
        server.resume()
    assert found["redis address"]["result"] == "ok"
    assert_failed(found["redis login"], "failed", "The store did not answer in time", "retry")


async def test_doctor_names_slow_redis(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the median of some calls."""
    monkeypatch.setattr(redis, "_SLOW_MILLISECONDS", 0.0)
    assert_failed((await site.findings(0))["redis latency"], "warning", "median of 5 calls", "Run Redis near")


@pytest.mark.needs("redis-server")
async def test_doctor_names_untrusted_and_expiring_certificate_of_redis(site: Installation, tmp_path: Path) -> None:
    """The test's certificates are valid for a day."""
    authority = CertificateAuthority(tmp_path / "ca")
    files = authority.server()

    def options(port: int) -> tuple[str, ...]:
        certificate = ("--tls-cert-file", str(files.cert_file), "--tls-key-file", str(files.key_file))
        return ("--tls-port", str(port), "--tls-auth-clients", "no", *certificate)

    with debian_redis(options) as server:
        site.settings["redis"]["url"] = server.tls_url
        untrusted = await site.findings(1)
        site.settings["redis"]["ca_file"] = str(authority.ca_file)
        expiring = await site.findings(0)
        site.settings["redis"]["ca_file"] = str(site.folder / "absent")
        unreadable = await site.findings(1)
    assert_failed(untrusted["redis tls"], "failed", "is not trusted (", "redis.ca_file")
    assert_failed(expiring["redis tls"], "warning", "expires in 0 days", "Renew the certificate")
    assert_failed(unreadable["redis tls"], "failed", "cannot be read", "Check redis.ca_file")
    assert expiring["redis writes"]["result"] == "ok"


async def test_doctor_shows_primary_that_sentinels_name(site: Installation) -> None:
    """Or that they know no primary of this name."""
    with sentinel_site(down_after=30) as store:
        site.settings["redis"] |= {"url": store.url, "wait_for_replicas": 2, **PATIENT}
        good = await site.findings(0)
        site.settings["redis"]["url"] = store.url.replace(SERVICE, "another")
        unknown = await site.findings(1)
    assert good["redis topology"]["found"] == f"primary: 127.0.0.1:{store.servers[0].port}"
    assert "confirmed by 2 replicas" in good["redis writes"]["found"]
    assert_failed(unknown["redis topology"], "failed", "know no primary by the name", "correct the name")


def test_doctor_tries_every_command_of_the_documented_acl() -> None:
    """Of the service's user, also in a cluster."""
    tried = {f"+{name}" for name in tried_commands(ShardKeys("signer", "00"), waits=True, is_cluster=True)}
    assert tried == {*ACL_COMMANDS, *CLUSTER_ACL_COMMANDS}


async def test_doctor_checks_each_primary_of_a_cluster(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user with the documented rights, and without one of them."""
    monkeypatch.setattr("signer.adapters.redis_store.probing._PRIMARY_WITHIN", 10.0)
    with cluster_site(timeout=30) as store:
        for node in store.nodes:
            node.command("ACL", "SETUSER", "signer", "on", f">{USER}", *RIGHTS, *CLUSTER_ACL_COMMANDS)
        write_password(site, USER)
        site.settings["redis"] |= {"url": store.url, "wait_for_replicas": 1, **PATIENT}
        good = await site.run("--json")
        for node in store.nodes:
            node.command("ACL", "SETUSER", "signer", "-cluster|slots")
        found = await site.findings(1)
    checks = [each for each in json.loads(good.stdout)["checks"] if each["part"] == "redis"]
    assert (good.exit_code, [each for each in checks if each["result"] == "failed"]) == (0, [])
    assert len([each for each in checks if each["check"] == "server"]) == 3
    assert_failed(found["redis topology"], "failed", "lacks +cluster|slots", "docs/redis.md")
