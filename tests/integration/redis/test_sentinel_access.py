"""Sentinels with TLS and separate users, names that change, and errors if the primary is not found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from signer.adapters.redis_client.opening import ACL_COMMANDS, open_redis
from signer.adapters.redis_client.sentinel import SENTINEL_ACL_COMMANDS
from signer.adapters.redis_client.settings import RedisSettings
from signer.domain.errors import Unavailable
from tests.support.certificates import CertificateAuthority
from tests.support.challenge_stores import assert_unavailable, changed, claim_of, open_store, real_store, sign
from tests.support.servers import debian_redis, free_port, valkey
from tests.support.topologies import SERVICE, sentinel_site

PASSWORD = "a password of the store"
SENTINEL_PASSWORD = "a-password-of-the-sentinels"


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of the password files."""

    store: Path
    sentinel: Path
    wrong: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One each for store and Sentinels, and one with a wrong password."""
    folder = tmp_path_factory.mktemp("passwords")
    found = Files(folder / "store", folder / "sentinel", folder / "wrong")
    found.store.write_text(PASSWORD)
    found.sentinel.write_text(f"{SENTINEL_PASSWORD}\n")
    found.wrong.write_text("not-the-password")
    return found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[RedisSettings]:
    """Debian's Redis, a primary and its Sentinel, with TLS only and one user each."""
    folder = tmp_path_factory.mktemp("tls")
    authority = CertificateAuthority(folder)
    server_files = authority.server()

    def options(port: int) -> tuple[str, ...]:
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(authority.ca_file)),
            *("--tls-cert-file", str(server_files.cert_file), "--tls-key-file", str(server_files.key_file)),
            *("--tls-replication", "yes"),
        )

    with debian_redis(options) as primary:
        rights = ("resetkeys", "~signer:*", "resetchannels", "-@all", *ACL_COMMANDS)
        primary.command("ACL", "SETUSER", "signer", "on", f">{PASSWORD}", *rights)
        settings = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1",
            f"user watcher on >{SENTINEL_PASSWORD} -@all {' '.join(SENTINEL_ACL_COMMANDS)}",
            "user default on nopass ~* &* +@all",
        )
        with debian_redis(lambda port: (*options(port), "--sentinel"), settings) as watcher:
            yield RedisSettings(
                url=f"rediss+sentinel://127.0.0.1:{watcher.port}/{SERVICE}/0",
                username="signer",
                password_file=files.store,
                sentinel_username="watcher",
                sentinel_password_file=files.sentinel,
                ca_file=authority.ca_file,
            )


async def _refusal(settings: RedisSettings) -> str:
    redis = await open_redis(settings)
    try:
        with pytest.raises(Unavailable) as refused:
            await real_store(redis, settings).ping()
    finally:
        await redis.close()
    return refused.value.detail


@pytest.mark.needs("redis-server")
async def test_documented_rights_are_sufficient(guarded: RedisSettings) -> None:
    """Over TLS, as two users with two passwords."""
    redis = await open_redis(guarded)
    store = real_store(redis, guarded)
    await store.ping()
    await sign(store, claim_of())
    await store.due(10)
    await redis.close()


@pytest.mark.needs("redis-server")
async def test_error_names_which_login_was_refused(guarded: RedisSettings, files: Files) -> None:
    """A wrong password at the Sentinels or at the store; no password is shown."""
    at_sentinel = await _refusal(changed(guarded, sentinel_password_file=files.wrong))
    assert "Sentinels" in at_sentinel
    assert "sentinel_password_file" in at_sentinel
    at_store = await _refusal(changed(guarded, password_file=files.wrong))
    assert "Sentinel" not in at_store
    assert "password" in at_store
    missing = await _refusal(changed(guarded, sentinel_password_file=files.wrong.with_name("none")))
    assert missing.startswith("redis.sentinel_password_file cannot be read")
    assert not any("not-the-password" in text for text in (at_sentinel, at_store, missing))


@pytest.mark.needs("redis-server")
async def test_sentinels_with_another_ca_are_refused(guarded: RedisSettings, tmp_path: Path) -> None:
    """TLS is verified there as well."""
    another = CertificateAuthority(tmp_path, "another CA")
    assert "TLS" in await _refusal(changed(guarded, ca_file=another.ca_file))


async def test_error_says_why_the_primary_is_not_found() -> None:
    """No Sentinel, another kind of server, an unknown name: the error comes at once, not at the deadline.

    A primary that is known is used further, whatever happens to its Sentinels.
    """
    with sentinel_site(replicas=1, down_after=30) as site:
        async with asyncio.timeout(5):
            async with open_store(site.url.replace(SERVICE, "another")) as store:
                await assert_unavailable("name", store.ping())
            async with open_store(f"redis+sentinel://127.0.0.1:{free_port()}/{SERVICE}") as store:
                await assert_unavailable("Sentinels cannot be reached", store.ping())
                await assert_unavailable("Sentinels cannot be reached", store.due(1))
            async with open_store(f"redis+sentinel://127.0.0.1:{site.servers[0].port}/{SERVICE}") as store:
                await assert_unavailable("redis.url", store.ping())
            async with open_store(f"redis+cluster://127.0.0.1:{site.servers[0].port}") as store:
                await assert_unavailable("redis.url", store.ping())
        async with open_store(site.url) as store:
            await store.ping()
            for watcher in site.sentinels:
                watcher.stop()
            await store.ping()


@pytest.mark.parametrize("url", [f"redis+sentinel://127.0.0.1:%d/{SERVICE}", "redis+cluster://127.0.0.1:%d"])
async def test_unknown_response_shapes_are_unavailable(url: str) -> None:
    """Whatever server listens there."""
    async with _strange_server(b"+OK\r\n$5\r\nhello\r\n") as port, open_store(url % port) as store:
        await assert_unavailable("cannot be read", store.ping())
        await assert_unavailable("cannot be read", store.due(1))


@pytest.mark.parametrize(
    ("url", "response"),
    [
        (
            f"redis+sentinel://127.0.0.1:%d/{SERVICE}",
            b"*2\r\n$8\r\n10.9.9.9\r\n$4\r\n6379\r\n*2\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n",
        ),
        (
            "redis+cluster://127.0.0.1:%d",
            (
                b"$64\r\ncluster_state:ok\ncluster_current_epoch:1\ncluster_slots_ok:16384\n\r\n"
                b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$8\r\n10.9.9.9\r\n:6379\r\n"
            ),
        ),
    ],
    ids=["sentinel", "cluster"],
)
async def test_discovered_server_on_another_machine_is_refused_without_tls(url: str, response: bytes) -> None:
    """No connection to it is opened, so the password is not sent to it."""
    async with _strange_server(response) as port, open_store(url % port) as store:
        await assert_unavailable("redis.allow_plaintext", store.ping())


@asynccontextmanager
async def _strange_server(response: bytes) -> AsyncIterator[int]:
    """Run a server that always sends this response; it has closed all connections when the context ends."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(1000):
            writer.write(b"+PONG\r\n" if b"PING" in request else response)
        writer.close()
        await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(handle(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*handlers)  # each ends when the client has closed its connection


async def test_host_name_is_resolved_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a name gets another address, the new server is found without a restart."""
    port, at = free_port(), "127.0.0.2"
    ask: Any = asyncio.get_running_loop().getaddrinfo

    async def look_up(host: str, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - the loop's own arguments
        return await ask(at if host == "store.example" else host, *args, **more)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    with valkey("--port", str(port), "--bind", "127.0.0.2") as first:
        async with open_store(f"redis://store.example:{port}", allow_plaintext=True) as store:
            await store.claim(claim_of())
            first.stop()
            await assert_unavailable("cannot be reached", store.ping())
            with valkey("--port", str(port), "--bind", "127.0.0.3") as second:
                at = "127.0.0.3"
                await store.claim(claim_of())
                assert second.command("EXISTS", f"signer:{{s{claim_of().id[:2]}}}:challenge:{claim_of().id[2:]}")
