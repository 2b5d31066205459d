"""``RedisSettings`` and its URL: what is accepted, what is refused, and that no secret shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import UnixDomainSocketConnection

from signer.adapters.redis_client.connections import TcpConnection, TlsConnection, UnixConnection
from signer.adapters.redis_client.opening import connection_to
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.urls import Address, Deployment, RedisUrl

FILE = Path("/run/secrets/a-file")


@pytest.mark.parametrize(
    ("url", "kind", "arguments"),
    [
        ("redis://store", TcpConnection, {"host": "store", "port": 6379}),
        ("redis://[::1]:6400/", TcpConnection, {"host": "::1", "port": 6400}),
        ("rediss://store.example.org", TlsConnection, {"host": "store.example.org", "port": 6379}),
        ("rediss+sentinel://sentinel/name", TlsConnection, {"host": "sentinel", "port": 26379}),
        ("redis+cluster://node", TcpConnection, {"host": "node", "port": 6379}),
        ("unix:///run/val%20key.sock?db=2", UnixConnection, {"path": "/run/val key.sock"}),
    ],
)
def test_url_chooses_connection_class_and_arguments(url: str, kind: type, arguments: dict[str, Any]) -> None:
    """Scheme, host, port and path become redis-py's arguments."""
    settings = RedisSettings(url=url, allow_plaintext=True)
    addresses = settings.parsed_url.addresses
    connection_class, found = connection_to(settings, addresses[0] if addresses else None)
    assert connection_class is kind
    assert found.items() >= arguments.items()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://store:6400/3", RedisUrl(addresses=(Address("store", 6400),), database=3)),
        ("rediss://store", RedisUrl(tls=True, addresses=(Address("store", 6379),))),
        ("unix:///run/valkey.sock", RedisUrl(socket="/run/valkey.sock")),
        ("unix:///run/valkey.sock?db=2", RedisUrl(socket="/run/valkey.sock", database=2)),
        (
            "redis+sentinel://one:26380,two/the-store/4",
            RedisUrl(
                deployment=Deployment.SENTINEL,
                addresses=(Address("one", 26380), Address("two", 26379)),
                service="the-store",
                database=4,
            ),
        ),
        (
            "rediss+sentinel://[::1],[::2]:7/a%20name",
            RedisUrl(
                deployment=Deployment.SENTINEL,
                tls=True,
                addresses=(Address("::1", 26379), Address("::2", 7)),
                service="a name",
            ),
        ),
        (
            "redis+cluster://one,two:7000/0",
            RedisUrl(deployment=Deployment.CLUSTER, addresses=(Address("one", 6379), Address("two", 7000))),
        ),
        ("rediss+cluster://one", RedisUrl(deployment=Deployment.CLUSTER, tls=True, addresses=(Address("one", 6379),))),
    ],
)
def test_valid_url_is_parsed(url: str, expected: RedisUrl) -> None:
    """Deployment, TLS, all hosts with their ports, the primary's name, the database."""
    assert RedisSettings(url=url, allow_plaintext=True).parsed_url == expected


def test_address_is_written_as_in_url() -> None:
    """An IPv6 address is in brackets."""
    assert [str(Address("store", 1)), str(Address("::1", 2))] == ["store:1", "[::1]:2"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@store",
        "redis://signer:s3cret@store:6379/0",
        "redis://signer@store",
        "redis://@store",
        "rediss://:s3cret@store",
        "redis://store?password=s3cret",
        "redis://store?username=signer",
        "unix:///run/valkey.sock?db=0&password=s3cret",
        "unix://signer:s3cret@/run/valkey.sock",
        "redis+sentinel://one,:s3cret@two/name",
        "redis+cluster://signer:s3cret@one,two",
        "rediss+cluster://one?password=s3cret",
    ],
)
def test_url_with_secret_is_refused_without_quoting_it(url: str) -> None:
    """The error says where the password belongs; neither the settings nor the parser quotes the URL."""
    with pytest.raises(ValueError, match="password file") as refused:
        RedisSettings(url=url)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValueError, match="password file"):
        RedisUrl.parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store:6379",
        "http://store",
        "redis://",
        "redis://store/first",
        "redis://store/-1",
        "redis://store/1/2",
        "redis://one,two",
        "redis://one,one",
        "redis://one one",
        "redis://[::1]6379",
        "redis://store:0",
        "redis://store#1",
        "redis+sentinel://one",
        "redis+sentinel://one/",
        "redis+sentinel:///name",
        "redis+sentinel://one,/name",
        "redis+sentinel://one/name/first",
        "redis+cluster://one/1",
        "redis+cluster://one/name",
        "redis+cluster://",
        "redis+something://one",
        "unix+cluster:///run/valkey.sock",
        "redis://store/²",
        "redis://store:port",
        "redis://store:99999",
        "redis://[::1",
        "redis://store?db=1",
        "redis://store?socket_timeout=1",
        "unix://",
        "unix:///run/valkey.sock?db=first",
        "unix:///run/valkey.sock?db=",
        "unix:///run/valkey.sock?timeout=1",
    ],
)
def test_invalid_url_is_refused(url: str) -> None:
    """Unknown schemes, parameters and databases, and URLs that cannot be parsed."""
    with pytest.raises(ValueError, match="the Redis URL"):
        RedisUrl.parse(url)
    with pytest.raises(ValueError, match=r"url|URL"):
        RedisSettings(url=url)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"username": "signer"}, "username needs a password_file"),
        ({"url": "redis+sentinel://127.0.0.1/name", "sentinel_username": "signer"}, "needs a sentinel_password_file"),
        ({"sentinel_password_file": FILE}, "sentinel_password_file is for"),
        ({"url": "redis+cluster://[::1]", "ca_file": FILE}, "rediss"),
        ({"cert_file": FILE, "key_file": FILE}, "rediss"),
        ({"ca_file": FILE}, "rediss"),
        ({"url": "rediss://store", "cert_file": FILE}, "set together"),
        ({"url": "rediss://store", "key_file": FILE}, "set together"),
        ({"lease": 0}, "more than 0"),
        ({"key_prefix": ""}, "key_prefix"),
        ({"key_prefix": "a{tag}"}, "key_prefix"),
        ({"wait_for_replicas": 1, "wait_timeout": 2, "command_timeout": 2}, "wait_timeout has to be shorter"),
    ],
)
def test_contradicting_settings_are_refused(settings: dict[str, Any], error: str) -> None:
    """A user without password, TLS files without TLS, half a client certificate, a prefix that changes the slot."""
    with pytest.raises(ValueError, match=error):
        RedisSettings(**{"url": "redis://localhost", **settings})


REMOTE = ["redis://10.9.9.9", "redis://store", "redis+sentinel://127.0.0.1,10.9.9.9/name", "redis+cluster://[::1],node"]


@pytest.mark.parametrize("url", REMOTE)
def test_plaintext_to_another_machine_is_refused(url: str) -> None:
    """As for the card API: with TLS, to this machine, or if a setting allows it, because a mesh encrypts."""
    with pytest.raises(ValueError, match="begin it with rediss, or set allow_plaintext"):
        RedisSettings(url=url)
    assert RedisSettings(url=url, allow_plaintext=True).url == url
    assert RedisSettings(url=url.replace("redis", "rediss", 1)).parsed_url.tls


@pytest.mark.parametrize(
    "url", ["redis://localhost", "redis://127.9.9.9", "redis+cluster://[::1]", "unix:///run/a.sock"]
)
def test_plaintext_to_this_machine_is_accepted(url: str) -> None:
    """Loopback addresses and Unix sockets cross no network."""
    assert RedisSettings(url=url).url == url


def test_wait_timeout_may_exceed_command_timeout_without_wait() -> None:
    """It is not used then."""
    assert RedisSettings(wait_timeout=3, command_timeout=2).wait_for_replicas == 0  # type: ignore[arg-type]


def test_commands_are_packed_as_by_redis_py() -> None:
    """Texts, bytes and numbers, and redis-py's own spelling of a command of two words."""
    own, theirs = UnixConnection(path="/run/valkey.sock"), UnixDomainSocketConnection(path="/run/valkey.sock")
    for command in (("EVALSHA", "ab", 1, "a key", b"\x00 bytes", "π", -5), ("CONFIG GET", "port")):
        assert b"".join(own.pack_command(*command)) == b"".join(theirs.pack_command(*command))
