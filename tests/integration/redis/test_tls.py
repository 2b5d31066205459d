"""``rediss://`` with a client certificate and an ACL user that has only the documented rights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from signer.adapters.redis_client.opening import ACL_COMMANDS, open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.application.ports import ChallengeStore
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.certificates import Certificate, CertificateAuthority
from tests.support.challenge_stores import changed, claim_granted, claim_of, real_store, sign
from tests.support.servers import RedisServer, debian_redis

pytestmark = pytest.mark.needs("redis-server")

PASSWORD = "a password of the tests"


@dataclass(frozen=True, slots=True)
class Site:
    """A server with TLS, and the settings for connecting to it."""

    server: RedisServer
    settings: RedisSettings


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Debian's Redis with TLS only, which requires a client certificate and has the documented user."""
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
async def _store(settings: RedisSettings) -> AsyncIterator[ChallengeStore]:
    redis = await open_redis(settings)
    try:
        yield real_store(redis, settings)
    finally:
        await redis.close()


async def _refusal(settings: RedisSettings) -> Unavailable:
    async with _store(settings) as store:
        with pytest.raises(Unavailable) as refused:
            await store.ping()
        assert refused.value.code is ErrorCode.STORE_UNAVAILABLE
        return refused.value


async def test_documented_rights_are_sufficient_for_every_call(site: Site) -> None:
    """Over TLS with a client certificate."""
    redis = await open_redis(site.settings)
    store = real_store(redis, site.settings)
    await store.ping()
    held = await sign(store, claim_of("nonce-tls-1"))
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    again = await store.begin_forwarding(held.record.id)
    assert again is not None
    await store.settle(again.lease, ChallengeState.VERIFIED, None)
    await store.release(await claim_granted(store, claim_of("nonce-tls-2")), RecordCode.KEY_BACKEND_UNAVAILABLE)
    assert await store.expire(claim_of("nonce-tls-2").id) is None
    assert await store.find(held.record.customer_id, held.record.owner) is not None
    await store.due(10)
    await find_weaknesses(redis, wait_for_replicas=0)
    await redis.command("WAIT", 0, 1)
    await redis.close()


@pytest.mark.parametrize("commands", [("zadd",), ("eval", "hdel"), ("wait",), ("select",)])
async def test_ping_names_the_missing_right(site: Site, commands: Sequence[str]) -> None:
    """Readiness fails before a move fails because of it, also if no cached script shows it, or the login needs it."""
    url = f"{site.settings.url}/{'1' if commands == ('select',) else '0'}"
    settings = changed(site.settings, url=url, wait_for_replicas=int(commands == ("wait",)))
    site.server.command("ACL", "SETUSER", "signer", *(f"-{name}" for name in commands))
    try:
        refused = await _refusal(settings)
    finally:
        rights = [f"+{name}" for name in commands if f"+{name}" in ACL_COMMANDS]
        site.server.command("ACL", "SETUSER", "signer", *rights)
    named = " ".join(f"+{name}" for name in commands)
    assert (refused.cause, f"lacks {named}," in refused.detail) == ("permission", True), refused.detail


async def test_right_that_only_checks_need_keeps_the_replica_ready(site: Site) -> None:
    """Everything can be signed; the warning about Redis's configuration names the right."""
    site.server.command("ACL", "SETUSER", "signer", "-info", "-ping")
    causes: list[str | None] = []
    redis = await open_redis(site.settings, lambda _seconds, cause: causes.append(cause))
    try:
        await real_store(redis, site.settings).ping()
        assert set(causes) == {None}  # no call failed
        [weakness] = await find_weaknesses(redis, wait_for_replicas=0)
    finally:
        site.server.command("ACL", "SETUSER", "signer", "+info", "+ping")
        await redis.close()
    assert "+info" in weakness


async def test_keys_with_another_prefix_are_refused(site: Site) -> None:
    """The user has rights for the keys of its own prefix only."""
    async with _store(changed(site.settings, key_prefix="another")) as store:
        with pytest.raises(Unavailable, match="lacks ~another:"):
            await store.ping()


async def test_wrong_password_is_reported_without_showing_it(site: Site, tmp_path: Path) -> None:
    """The detail says what to check."""
    wrong = tmp_path / "password"
    wrong.write_text("not the password")
    error = await _refusal(changed(site.settings, password_file=wrong))
    assert "password" in error.detail
    assert "not the password" not in repr(error)


async def test_missing_password_file_fails_until_it_exists(site: Site, tmp_path: Path) -> None:
    """A secret that is not mounted yet is read again for each connection."""
    absent = tmp_path / "password"
    redis = await open_redis(changed(site.settings, password_file=absent))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"redis\.password_file cannot be read"):
            await redis.command("PING")
    absent.write_text(PASSWORD)
    assert await redis.command("PING")
    await redis.close()


async def test_rotated_password_is_used_without_restart(site: Site, tmp_path: Path) -> None:
    """The file is read for each new connection."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    async with _store(changed(site.settings, password_file=file)) as store:
        await store.ping()
        site.server.command("ACL", "SETUSER", "signer", "resetpass", ">the next password")
        try:
            file.write_text("the next password\n")
            site.server.command("CLIENT", "KILL", "USER", "signer")
            await store.ping()
        finally:
            site.server.command("ACL", "SETUSER", "signer", "resetpass", f">{PASSWORD}")


async def test_missing_client_certificate_is_refused(site: Site) -> None:
    """The server requires one; its alert or the closed connection may be seen first."""
    await _refusal(changed(site.settings, cert_file=None, key_file=None))


async def test_system_cas_are_used_without_ca_file(site: Site) -> None:
    """None of them issued the certificate of the server."""
    assert "unknown issuer" in (await _refusal(changed(site.settings, ca_file=None))).detail


@pytest.mark.parametrize("url", ["rediss://{}", "rediss+cluster://{}"])
async def test_message_says_why_certificate_is_not_trusted(tmp_path: Path, url: str) -> None:
    """It has expired, has an unknown issuer, another purpose or another name, also if the server is found by others."""
    authority, another = CertificateAuthority(tmp_path / "ca"), CertificateAuthority(tmp_path / "another", "another CA")

    def options(files: Certificate, port: int) -> tuple[str, ...]:
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(authority.ca_file)),
            *("--tls-cert-file", str(files.cert_file), "--tls-key-file", str(files.key_file)),
        )

    expired = partial(authority.server, valid_for=timedelta(hours=-1))
    issuers: dict[str, Callable[[], Certificate]] = {
        "its certificate has expired, or its CA's: check this machine's clock, or renew it": expired,
        "its certificate is of an unknown issuer: add its CA to redis.ca_file": another.server,
        "its certificate is not trusted (unsuitable certificate purpose)": authority.client,
        "its certificate is for another name: name the server in": partial(authority.server, "redis.example.org"),
    }
    for reason, issue in issuers.items():
        with debian_redis(partial(options, issue())) as server:
            location = server.tls_url.removeprefix("rediss://").partition("/")[0]
            refused = await _refusal(RedisSettings(url=url.format(location), ca_file=authority.ca_file))
        assert (refused.cause, reason in refused.detail) == ("tls", True), refused.detail


async def test_missing_certificate_file_is_reported_as_tls_failure(site: Site, tmp_path: Path) -> None:
    """Not as a network failure."""
    assert "TLS" in (await _refusal(changed(site.settings, cert_file=tmp_path / "none.pem"))).detail
