"""``RedisSettings``: what is accepted, what is refused, and that no secret shows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import UnixDomainSocketConnection

from signer.adapters.redis_client.connections import TcpConnection, TlsConnection, UnixConnection
from signer.adapters.redis_client.opening import connection_to
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.urls import Address, RedisUrl, Topology
from signer.adapters.redis_store.challenge_store import StoreSettings

FILE = Path("/run/secrets/a-file")


@pytest.mark.parametrize(
    ("url", "kind", "place"),
    [
        ("redis://store", TcpConnection, {"host": "store", "port": 6379}),
        ("redis://[::1]:6400/", TcpConnection, {"host": "::1", "port": 6400}),
        ("rediss://store.example.org", TlsConnection, {"host": "store.example.org", "port": 6379}),
        ("rediss+sentinel://sentinel/name", TlsConnection, {"host": "sentinel", "port": 26379}),
        ("redis+cluster://node", TcpConnection, {"host": "node", "port": 6379}),
        ("unix:///run/val%20key.sock?db=2", UnixConnection, {"path": "/run/val key.sock"}),
    ],
)
def test_a_url_names_a_connection(url: str, kind: type, place: dict[str, Any]) -> None:
    """Scheme, host, port and path become redis-py's words for them."""
    settings = RedisSettings(url=url)
    addresses = settings.place.addresses
    connection_class, arguments = connection_to(settings, addresses[0] if addresses else None)
    assert connection_class is kind
    assert arguments.items() >= place.items()


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
                topology=Topology.SENTINEL,
                addresses=(Address("one", 26380), Address("two", 26379)),
                service="the-store",
                database=4,
            ),
        ),
        (
            "rediss+sentinel://[::1],[::2]:7/a%20name",
            RedisUrl(
                topology=Topology.SENTINEL,
                tls=True,
                addresses=(Address("::1", 26379), Address("::2", 7)),
                service="a name",
            ),
        ),
        (
            "redis+cluster://one,two:7000/0",
            RedisUrl(topology=Topology.CLUSTER, addresses=(Address("one", 6379), Address("two", 7000))),
        ),
        ("rediss+cluster://one", RedisUrl(topology=Topology.CLUSTER, tls=True, addresses=(Address("one", 6379),))),
    ],
)
def test_a_url_is_read(url: str, expected: RedisUrl) -> None:
    """Topology, TLS, all hosts with their ports, the primary's name, the database."""
    assert RedisSettings(url=url).place == expected


def test_an_address_is_written_as_in_a_url() -> None:
    """An IPv6 address in brackets."""
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
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    """The error tells where the password belongs, and does not show the one that it found."""
    with pytest.raises(ValueError, match="password file") as refused:
        RedisSettings(url=url)
    assert "s3cret" not in str(refused.value)


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
def test_what_is_no_place_is_refused(url: str) -> None:
    """Unknown schemes, parameters and databases, and URLs that cannot be read."""
    with pytest.raises(ValueError, match="the Redis URL"):
        RedisSettings(url=url)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"username": "signer"}, "password file"),
        ({"url": "redis+sentinel://one/name", "sentinel_username": "signer"}, "password file"),
        ({"sentinel_password_file": FILE}, "Sentinels"),
        ({"url": "redis+cluster://one", "ca_file": FILE}, "rediss"),
        ({"cert_file": FILE, "key_file": FILE}, "rediss"),
        ({"ca_file": FILE}, "rediss"),
        ({"url": "rediss://store", "cert_file": FILE}, "go together"),
        ({"url": "rediss://store", "key_file": FILE}, "go together"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], why: str) -> None:
    """A user without a password, TLS files without TLS, half a client certificate."""
    with pytest.raises(ValueError, match=why):
        RedisSettings(**{"url": "redis://store", **settings})


def test_a_description_says_where_and_how() -> None:
    """For the log line at start: the place, the user and the files' paths."""
    plain = RedisSettings(url="redis://store:6379/1")
    assert plain.describe() == "redis://store:6379/1 (no password)"
    full = RedisSettings(
        url="rediss://store",
        username="signer",
        password_file=FILE,
        ca_file=FILE,
        cert_file=FILE,
        key_file=FILE,
    )
    assert full.describe() == f"rediss://store (user signer, CA {FILE}, client certificate {FILE})"
    default = RedisSettings(url="redis://store", password_file=FILE)
    assert default.describe() == "redis://store (user default)"
    sentinel = RedisSettings(
        url="redis+sentinel://one,two/name",
        password_file=FILE,
        sentinel_username="watcher",
        sentinel_password_file=FILE,
    )
    assert sentinel.describe() == "redis+sentinel://one,two/name (user default, at the Sentinels user watcher)"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"nonce_retention": timedelta(minutes=119)}, "twice"),
        ({"nonce_retention": timedelta(hours=9), "max_age": timedelta(hours=5)}, "twice"),
        ({"lease": timedelta(0)}, "lease"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "a{tag}"}, "prefix"),
    ],
)
def test_store_settings_that_would_break_a_promise_are_refused(settings: dict[str, Any], why: str) -> None:
    """Retention below twice the maximum age, no lease, and a prefix that would move keys to another slot."""
    with pytest.raises(ValueError, match=why):
        StoreSettings(**settings)


def test_a_retention_of_twice_the_maximum_age_is_enough() -> None:
    """The boundary itself is allowed."""
    assert StoreSettings(nonce_retention=timedelta(hours=2)).max_age == timedelta(hours=1)


def test_commands_are_packed_as_redis_py_packs_them() -> None:
    """Texts, bytes and numbers, and redis-py's own spelling of a command of two words."""
    ours, theirs = UnixConnection(path="/run/valkey.sock"), UnixDomainSocketConnection(path="/run/valkey.sock")
    for command in (("EVALSHA", "ab", 1, "a key", b"\x00 bytes", "π", -5), ("CONFIG GET", "port")):
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
