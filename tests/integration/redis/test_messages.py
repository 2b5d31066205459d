"""What is said about a Redis that does not fit ``redis.url``: what is wrong, and what to write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import CertificateAuthority
from tests.support.challenge_stores import assert_unavailable, open_store
from tests.support.servers import debian_redis, free_port, valkey
from tests.support.short_deadlines import short_deadlines

EXPECTS_TLS = "its port may expect TLS: begin redis.url with rediss"
NO_DATABASE = "no database of this number: correct redis.url"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one server, and its CA."""

    plain: int
    tls: int
    ca_file: Path


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """A server that expects TLS on one of its ports."""
    authority = CertificateAuthority(tmp_path_factory.mktemp("tls"))
    files = authority.server()

    def options(port: int) -> tuple[str, ...]:
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(authority.ca_file)),
            *("--tls-cert-file", str(files.cert_file), "--tls-key-file", str(files.key_file)),
        )

    plain = free_port()
    with debian_redis(options) as server, valkey("--port", str(plain), "--bind", "127.0.0.1"):
        yield Ports(plain, int(server.tls_url.rsplit(":", 1)[1].partition("/")[0]), authority.ca_file)


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://127.0.0.1:{tls}", EXPECTS_TLS),
        ("redis+sentinel://127.0.0.1:{tls}/name", EXPECTS_TLS),
        ("redis+cluster://127.0.0.1:{tls}", EXPECTS_TLS),
        ("redis://127.0.0.1:{plain}/99", NO_DATABASE),
        ("rediss://127.0.0.1:{tls}", "TLS with the store failed: its certificate is of an unknown issuer: add its CA"),
        ("rediss://127.0.0.1:{plain}", "If its port expects no TLS, redis.url must begin with redis, not rediss"),
        ("redis://127.0.0.1:1", r"cannot be reached \(connection refused\): check redis.url, and that the server runs"),
        ("unix:///absent", "cannot be reached: check redis.url, and that the server runs"),
    ],
)
async def test_message_says_what_is_wrong_and_what_to_do(ports: Ports, url: str, message: str) -> None:
    """A scheme, a port or a database that the server does not have."""
    async with open_store(url.format(tls=ports.tls, plain=ports.plain)) as store:
        await assert_unavailable(message, store.ping())


async def test_message_names_database_over_a_socket() -> None:
    """Over a Unix socket the client hides the server's response."""
    with valkey() as server:
        async with open_store(f"{server.url}?db=99") as store:
            await assert_unavailable(NO_DATABASE, store.ping())


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("kind", ["url", "tcp_url"])
async def test_message_about_a_timeout_without_tls_names_no_tls(kind: str, is_open: bool) -> None:
    """Over a Unix socket and over TCP; while a connection is opened, and after that."""
    with valkey() as server:
        async with open_store(getattr(server, kind)) as store:
            if is_open:
                await store.ping()
            server.pause()
            with short_deadlines(store, 0.3):
                await assert_unavailable(r": The store did not answer in time; retry\.$", store.ping())
            server.resume()
