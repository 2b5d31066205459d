"""Opening Redis from settings: one server, the primary that Sentinels appoint, or a cluster.

Rules:

* Opening connects to nothing: the service starts before its Redis does, and readiness says so until then.
* All that redis-py would decide by itself is decided here: protocol, decoding, repetitions (none), pool, health checks.
* The user needs ``ACL_COMMANDS`` on the keys of the prefix, and nothing else::

    ACL SETUSER signer on >… resetkeys ~signer:* resetchannels -@all +evalsha +eval …
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.cluster import ClusterTopology
from signer.adapters.redis_client.connections import PasswordFile, TcpConnection, TlsConnection, UnixConnection
from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.sentinel import SentinelTopology
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.topology import SingleServer
from signer.adapters.redis_client.topology import Topology as OpenTopology
from signer.adapters.redis_client.urls import Address, Topology

ACL_COMMANDS: Final = (
    *("+evalsha", "+eval", "+time", "+get", "+set", "+hset", "+hmget", "+hdel", "+pexpire"),
    *("+zadd", "+zrem", "+zrangebyscore", "+wait", "+ping", "+info"),
)
"""What the ACL has to allow."""

CLUSTER_ACL_COMMANDS: Final = ("+cluster|info", "+cluster|slots", "+asking")
"""What it has to allow besides in a cluster."""

_HEALTH_CHECK_SECONDS: Final = 15
"""A connection that was idle for longer is tried with a PING before it is used."""

_SENTINEL_CONNECTIONS: Final = 2
_NO_ADDRESS: Final = Address("", 0)
"""Of a Unix socket."""


async def open_redis(settings: RedisSettings) -> RedisCalls:
    """Make a client for ``settings``. Nothing is connected yet, so this works while Redis is down."""
    return RedisCalls(_open_topology(settings), timeout=settings.call_timeout)


def connection_to(settings: RedisSettings, address: Address | None) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """Give redis-py's class for a connection to ``address``, or to the Unix socket, and what it is made with."""
    if address is None:
        return UnixConnection, {"path": settings.place.socket}
    place = {"host": address.host, "port": address.port}
    if not settings.place.tls:
        return TcpConnection, place
    files = {"ca_file": settings.ca_file, "cert_file": settings.cert_file, "key_file": settings.key_file}
    return TlsConnection, {**place, **files}


def _open_topology(settings: RedisSettings) -> OpenTopology:
    place = settings.place
    within = settings.connect_timeout.total_seconds()
    if place.topology is Topology.SENTINEL:
        sentinels = [_open_sentinel(settings, address) for address in place.addresses]
        return SentinelTopology(
            place.service, sentinels, lambda address: _open_server(settings, address), within=within
        )
    if place.topology is Topology.CLUSTER:
        return ClusterTopology(place.addresses, lambda address: _open_server(settings, address), within=within)
    return SingleServer(_open_server(settings, place.addresses[0] if place.addresses else None))


def _open_server(settings: RedisSettings, address: Address | None) -> Node:
    credentials = _credentials(settings.username, settings.password_file)
    return _open(settings, address, credentials, settings.max_connections, db=settings.place.database)


def _open_sentinel(settings: RedisSettings, address: Address) -> Node:
    credentials = _credentials(settings.sentinel_username, settings.sentinel_password_file)
    return _open(settings, address, credentials, _SENTINEL_CONNECTIONS, db=0)


def _credentials(username: str | None, password_file: Path | None) -> PasswordFile | None:
    return PasswordFile(username, password_file) if password_file else None


def _open(
    settings: RedisSettings, address: Address | None, credentials: PasswordFile | None, connections: int, *, db: int
) -> Node:
    connection_class, place = connection_to(settings, address)
    pool = BlockingConnectionPool(
        connection_class=connection_class,
        max_connections=connections,
        timeout=settings.pool_wait.total_seconds(),
        socket_connect_timeout=settings.connect_timeout.total_seconds(),
        socket_timeout=None,  # RedisCalls has one deadline for the whole call
        health_check_interval=_HEALTH_CHECK_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=False,
        driver_info=None,
        credential_provider=credentials,
        db=db,
        **place,
    )
    return Node(Redis.from_pool(pool), address or _NO_ADDRESS)
