"""``RedisSettings``: what is accepted, what is refused, and that no secret shows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import UnixDomainSocketConnection

from signer.adapters.redis_store.challenge_store import StoreSettings
from signer.adapters.redis_store.client import RedisSettings
from signer.adapters.redis_store.connections import TcpConnection, TlsConnection, UnixConnection

FILE = Path("/run/secrets/a-file")


@pytest.mark.parametrize(
    ("url", "kind", "place"),
    [
        ("redis://store", TcpConnection, {"host": "store", "port": 6379, "db": 0}),
        ("redis://store:6400/3", TcpConnection, {"host": "store", "port": 6400, "db": 3}),
        ("redis://[::1]:6400/", TcpConnection, {"host": "::1", "port": 6400, "db": 0}),
        ("rediss://store.example.org", TlsConnection, {"host": "store.example.org", "port": 6379, "db": 0}),
        ("unix:///run/valkey.sock", UnixConnection, {"path": "/run/valkey.sock", "db": 0}),
        ("unix:///run/val%20key.sock?db=2", UnixConnection, {"path": "/run/val key.sock", "db": 2}),
    ],
)
def test_a_url_names_a_place(url: str, kind: type, place: dict[str, Any]) -> None:
    """Scheme, host, port, path and database become redis-py's words for them."""
    connection_class, arguments = RedisSettings(url=url).connection()
    assert connection_class is kind
    assert arguments.items() >= place.items()


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
