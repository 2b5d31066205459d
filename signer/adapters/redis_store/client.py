"""Opening Redis from settings: ``redis://``, ``rediss://`` (TLS, also with a client certificate), ``unix://``.

Rules:

* A secret is a file's path, never a part of a URL.
* Opening connects to nothing: the service starts before its Redis does, and readiness says so until then.
* All that redis-py would decide by itself is decided here: protocol, decoding, repetitions (none), pool, health checks.
* The user needs ``ACL_COMMANDS`` on the keys of the prefix, and nothing else::

    ACL SETUSER signer on >… resetkeys ~signer:* resetchannels -@all +evalsha +eval …
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from signer.adapters.redis_store.calls import RedisCalls
from signer.adapters.redis_store.connections import PasswordFile, TcpConnection, TlsConnection, UnixConnection

ACL_COMMANDS: Final = (
    *("+evalsha", "+eval", "+time", "+get", "+set", "+hset", "+hmget", "+hdel", "+pexpire"),
    *("+zadd", "+zrem", "+zrangebyscore", "+wait", "+ping", "+info"),
)
"""What the ACL has to allow."""

_DEFAULT_PORT: Final = 6379
_TCP_SCHEMES: Final = frozenset({"redis", "rediss"})
_HEALTH_CHECK_SECONDS: Final = 15
"""A connection that was idle for longer is tried with a PING before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where Redis is, who we are, and how long it may take.

    Attributes:
        url: ``redis://host[:port][/db]``, ``rediss://…`` or ``unix:///path[?db=n]``; without user and password.
        username: the ACL user; ``None`` for the user ``default``.
        password_file: the file that holds the password; ``None`` where none is asked for.
        ca_file: PEM; the only CA that the server's certificate may come from. ``None`` for the system's.
        cert_file: PEM; our certificate, where the server asks for one.
        key_file: PEM; its key.
        call_timeout: the longest that one call may take.
        connect_timeout: the longest that opening a connection may take.
        max_connections: how many connections, and so calls at once, there are at most.
        pool_wait: how long a call waits for one of them.
    """

    url: str
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    call_timeout: timedelta = timedelta(seconds=2)
    connect_timeout: timedelta = timedelta(seconds=1)
    max_connections: int = 64
    pool_wait: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        """Refuse what could not work, or would be a secret in the wrong place.

        Raises:
            ValueError: says which setting, never what is in it.
        """
        url = self._split()
        if url.scheme in _TCP_SCHEMES:
            if not url.hostname or not _is_database(url.path.removeprefix("/") or "0") or url.query:
                raise ValueError("the Redis URL has to be redis://host:port/database")
        elif url.scheme == "unix":
            if (
                not url.path
                or set(parse_qs(url.query, keep_blank_values=True)) - {"db"}
                or not _is_database(_unix_db(url))
            ):
                raise ValueError("the Redis URL has to be unix:///path/of/the/socket?db=database")
        else:
            raise ValueError("the Redis URL has to begin with redis://, rediss:// or unix://")
        if self.username is not None and self.password_file is None:
            raise ValueError("a Redis user needs a password file")
        if url.scheme != "rediss" and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("a CA, a certificate and a key are for rediss:// only")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("the client certificate and its key go together")

    def describe(self) -> str:
        """Say in one line where Redis is and how it is reached, without secrets."""
        who = f"user {self.username}" if self.username else "user default"
        how = [who if self.password_file else "no password"]
        if self.ca_file:
            how.append(f"CA {self.ca_file}")
        if self.cert_file:
            how.append(f"client certificate {self.cert_file}")
        return f"{self.url} ({', '.join(how)})"

    def _split(self) -> SplitResult:
        try:
            url = urlsplit(self.url)
            holds_user = url.username is not None or url.password is not None or "@" in url.netloc
            _ = url.port
        except ValueError:
            raise ValueError("the Redis URL cannot be read") from None
        if holds_user or "password" in url.query or "username" in url.query:
            raise ValueError(
                "the Redis URL must not hold a user or a password; set the user's name and a password file"
            )
        return url

    def connection(self) -> tuple[type[AbstractConnection], dict[str, Any]]:
        """Give redis-py's class for a connection of this kind, and what it is made with."""
        url = self._split()
        if url.scheme == "unix":
            return UnixConnection, {"path": unquote(url.path), "db": int(_unix_db(url))}
        place = {
            "host": url.hostname,
            "port": url.port or _DEFAULT_PORT,
            "db": int(url.path.removeprefix("/") or 0),
        }
        if url.scheme == "redis":
            return TcpConnection, place
        files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
        return TlsConnection, {**place, **files}


def _unix_db(url: SplitResult) -> str:
    return parse_qs(url.query, keep_blank_values=True).get("db", ["0"])[-1]


def _is_database(text: str) -> bool:
    return text.isascii() and text.isdecimal()


async def open_redis(settings: RedisSettings) -> RedisCalls:
    """Make a client for ``settings``. Nothing is connected yet, so this works while Redis is down."""
    connection_class, place = settings.connection()
    password_file = settings.password_file
    pool = BlockingConnectionPool(
        connection_class=connection_class,
        max_connections=settings.max_connections,
        timeout=settings.pool_wait.total_seconds(),
        socket_connect_timeout=settings.connect_timeout.total_seconds(),
        socket_timeout=None,  # RedisCalls has one deadline for the whole call
        health_check_interval=_HEALTH_CHECK_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=False,
        driver_info=None,
        credential_provider=PasswordFile(settings.username, password_file) if password_file else None,
        **place,
    )
    return RedisCalls(Redis.from_pool(pool), timeout=settings.call_timeout)


async def find_weaknesses(redis: RedisCalls) -> tuple[str, ...]:
    """Name what in the server's own settings breaks the promises of the store, one sentence each.

    Raises:
        Unavailable: ``store_unavailable``.
    """
    memory, persistence = await redis.commands([("INFO", "memory"), ("INFO", "persistence")])
    weaknesses = []
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction":
        weaknesses.append(
            f"Redis may evict records (maxmemory-policy {policy}), and an evicted nonce can be signed again: "
            "set maxmemory-policy noeviction.",
        )
    if not persistence.get("aof_enabled"):
        weaknesses.append(
            "Redis writes no append-only file, so a restart forgets nonces, which can then be signed again: "
            "set appendonly yes.",
        )
    return tuple(weaknesses)
