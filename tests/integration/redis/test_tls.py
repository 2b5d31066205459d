"""``rediss://`` with a client certificate and an ACL user that has the rights of the manual and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from signer.adapters.redis_client.opening import ACL_COMMANDS, open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.certificates import CertificateAuthority
from tests.support.challenge_stores import claim_mine, claim_of, sign
from tests.support.servers import RedisServer, debian_redis

pytestmark = pytest.mark.needs("redis-server")

PASSWORD = "a password of the tests"


@dataclass(frozen=True, slots=True)
class Site:
    """A server with TLS, and the settings with which it lets us in."""

    server: RedisServer
    settings: RedisSettings


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Debian's Redis, which listens with TLS only, wants a client certificate and knows our user."""
    folder = tmp_path_factory.mktemp("tls")
    authority = CertificateAuthority(folder)
    server_files, client_files = authority.server(), authority.client()
    password_file = folder / "password"
    password_file.write_text(PASSWORD + "\n")

    def options(port: int) -> tuple[str, ...]:
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "yes", "--tls-ca-cert-file", str(authority.ca_file)),
            *("--tls-cert-file", str(server_files.cert_file), "--tls-key-file", str(server_files.key_file)),
        )

    with debian_redis(options) as server:
        rights = ("resetkeys", "~signer:*", "resetchannels", "-@all", *ACL_COMMANDS)
        server.command("ACL", "SETUSER", "signer", "on", f">{PASSWORD}", *rights)
        yield Site(
            server,
            RedisSettings(
                url=server.tls_url,
                username="signer",
                password_file=password_file,
                ca_file=authority.ca_file,
                cert_file=client_files.cert_file,
                key_file=client_files.key_file,
            ),
        )


@asynccontextmanager
async def _store(settings: RedisSettings) -> AsyncIterator[RedisChallengeStore]:
    redis = await open_redis(settings)
    try:
        yield RedisChallengeStore(redis)
    finally:
        await redis.close()


async def _refusal(settings: RedisSettings) -> Unavailable:
    async with _store(settings) as store:
        with pytest.raises(Unavailable) as refused:
            await store.ping()
        assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
        return refused.value


async def test_the_documented_rights_suffice_for_every_call(site: Site) -> None:
    """Over TLS with our certificate, as our user, by the documented ACL and nothing more."""
    redis = await open_redis(site.settings)
    store = RedisChallengeStore(redis)
    await store.ping()
    held = await sign(store, claim_of("nonce-tls-1"))
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    again = await store.begin_forwarding(held.record.id)
    assert again is not None
    await store.settle(again.lease, ChallengeState.VERIFIED, None)
    await store.release(await claim_mine(store, claim_of("nonce-tls-2")), RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert await store.expire(claim_of("nonce-tls-2").id) is None
    assert await store.find(held.record.customer_id, held.record.owner) is not None
    await store.due(10)
    await find_weaknesses(redis)
    await redis.command("WAIT", 0, 1)
    await redis.close()


async def test_a_lacking_right_is_said_by_ping(site: Site) -> None:
    """Before any challenge is half-way through a move: readiness fails, and says that it is the ACL."""
    site.server.command("ACL", "SETUSER", "signer", "-zadd")
    try:
        assert "ACL" in (await _refusal(site.settings)).detail
    finally:
        site.server.command("ACL", "SETUSER", "signer", "+zadd")


async def test_keys_outside_of_the_prefix_are_refused(site: Site) -> None:
    """The user may touch the keys of its own prefix alone."""
    async with _store(site.settings) as store:
        store._prefix = "another"
        with pytest.raises(Unavailable, match="ACL"):
            await store.ping()


async def test_a_wrong_password_is_said_and_not_shown(site: Site, tmp_path: Path) -> None:
    """The detail says what to check; the password is in no message."""
    wrong = tmp_path / "password"
    wrong.write_text("not the password")
    error = await _refusal(replace(site.settings, password_file=wrong))
    assert "password" in error.detail
    assert "not the password" not in repr(error)


async def test_a_missing_password_file_is_no_connection_without_one(site: Site, tmp_path: Path) -> None:
    """A secret that has not been mounted yet fails like a wrong one, each time anew."""
    absent = tmp_path / "password"
    redis = await open_redis(replace(site.settings, password_file=absent))
    for _ in range(2):
        with pytest.raises(Unavailable, match="password file"):
            await redis.command("PING")
    absent.write_text(PASSWORD)
    assert await redis.command("PING")
    await redis.close()


async def test_a_rotated_password_comes_into_use_without_a_restart(site: Site, tmp_path: Path) -> None:
    """The file is read at each new connection."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    async with _store(replace(site.settings, password_file=file)) as store:
        await store.ping()
        site.server.command("ACL", "SETUSER", "signer", "resetpass", ">the next password")
        try:
            file.write_text("the next password\n")
            site.server.command("CLIENT", "KILL", "USER", "signer")
            await store.ping()
        finally:
            site.server.command("ACL", "SETUSER", "signer", "resetpass", f">{PASSWORD}")


async def test_no_certificate_of_ours_is_refused(site: Site) -> None:
    """The server wants one; whether its alert or the connection's end is seen first is the network's affair."""
    await _refusal(replace(site.settings, cert_file=None, key_file=None))


async def test_a_server_of_another_ca_is_refused(site: Site, tmp_path: Path) -> None:
    """The given CA is the only one trusted."""
    another = CertificateAuthority(tmp_path, "another CA")
    assert "TLS" in (await _refusal(replace(site.settings, ca_file=another.ca_file))).detail


async def test_without_a_ca_the_systems_decide(site: Site) -> None:
    """None of them knows the server."""
    assert "TLS" in (await _refusal(replace(site.settings, ca_file=None))).detail


async def test_a_server_of_another_name_is_refused(tmp_path: Path) -> None:
    """Its certificate comes from our CA, but for another host."""
    authority = CertificateAuthority(tmp_path)
    files = authority.server("redis.example.org")

    def options(port: int) -> tuple[str, ...]:
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(authority.ca_file)),
            *("--tls-cert-file", str(files.cert_file), "--tls-key-file", str(files.key_file)),
        )

    with debian_redis(options) as server:
        assert "TLS" in (await _refusal(RedisSettings(url=server.tls_url, ca_file=authority.ca_file))).detail


async def test_an_unreadable_certificate_is_said(site: Site, tmp_path: Path) -> None:
    """A file that is not there is TLS's trouble, not the network's."""
    assert "TLS" in (await _refusal(replace(site.settings, cert_file=tmp_path / "none.pem"))).detail
