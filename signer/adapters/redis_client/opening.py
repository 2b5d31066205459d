"""Opens Redis from the settings: one server, the primary that Sentinels appoint, or a cluster.

* Nothing is connected yet: the service can start before Redis does, and is not ready until then.
* Every choice of redis-py's is set explicitly: protocol, decoding, retries (none), health checks (none).
* The user needs ``ACL_COMMANDS`` on the keys of the prefix and nothing else, see docs/redis.md.
"""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from signer.adapters.redis_client.calls import CallEnded, RedisCalls
from signer.adapters.redis_client.cluster import ClusterTopology
from signer.adapters.redis_client.connections import (
    PasswordFile,
    RedisConnection,
    TcpConnection,
    TlsConnection,
    UnixConnection,
)
from signer.adapters.redis_client.failures import PrimaryNotFound
from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.sentinel import SentinelTopology
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.topology import SingleServer, Topology
from signer.adapters.redis_client.urls import Address, Deployment

ACL_COMMANDS: Final = (
    *("+evalsha", "+eval", "+time", "+get", "+set", "+hset", "+hmget", "+hdel", "+pexpire"),
    *("+zadd", "+zrem", "+zrangebyscore", "+wait", "+ping", "+info"),
)
"""What the ACL has to allow."""

CLUSTER_ACL_COMMANDS: Final = ("+cluster|info", "+cluster|slots", "+asking")
"""What it has to allow as well in a cluster."""

_KEEP_ALIVE: Final = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""The kernel closes an idle connection whose server does not respond for this long: 30 s in all."""

_PLAINTEXT: Final = (
    "Sentinel or the cluster names a server on another machine, and redis.url has no TLS: begin it with rediss, or set "
    "redis.allow_plaintext."
)
_NO_ADDRESS: Final = Address("", 0)
"""In place of an address, for a Unix socket."""


async def open_redis(settings: RedisSettings, call_ended: CallEnded | None = None) -> RedisCalls:
    """Return a client that has not connected yet, so this works while Redis is down. The caller closes it."""
    url = settings.parsed_url
    timeout = settings.connect_timeout.total_seconds()
    topology: Topology
    if url.deployment is Deployment.SENTINEL:
        login = _login("redis.sentinel_password_file", settings.sentinel_username, settings.sentinel_password_file)
        sentinels = [_open(settings, address, login, db=0, waits=False) for address in url.addresses]
        topology = SentinelTopology(url.service, sentinels, partial(open_server, settings), timeout=timeout)
    elif url.deployment is Deployment.CLUSTER:
        topology = ClusterTopology(url.addresses, partial(open_server, settings), timeout=timeout)
    else:
        topology = SingleServer(open_server(settings, url.addresses[0] if url.addresses else None))
    return RedisCalls(topology, timeout=settings.command_timeout, call_ended=call_ended)


def connection_to(settings: RedisSettings, address: Address | None) -> tuple[type[RedisConnection], dict[str, Any]]:
    """Return the class of connections to ``address``, or to the Unix socket, and its arguments."""
    url = settings.parsed_url
    if address is None:
        return UnixConnection, {"path": url.socket}
    host_and_port = {
        "host": address.host,
        "port": address.port,
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEP_ALIVE,
    }
    if not url.tls:
        return TcpConnection, host_and_port
    files = {"ca_file": settings.ca_file, "cert_file": settings.cert_file, "key_file": settings.key_file}
    return TlsConnection, {**host_and_port, **files}


def open_server(settings: RedisSettings, address: Address | None) -> Node:
    """Return the server at ``address``, or at the Unix socket, which has not been connected yet.

    Raises:
        PrimaryNotFound: the other servers name a server on another machine, and TLS is not used.
    """
    login = _login("redis.password_file", settings.username, settings.password_file)
    if address is not None and not settings.parsed_url.tls and not settings.allows_plaintext_to(address.host):
        raise PrimaryNotFound(_PLAINTEXT, cause="configuration")
    waits = settings.wait_for_replicas > 0
    return _open(settings, address, login, db=settings.parsed_url.database, waits=waits)


def _open(
    settings: RedisSettings, address: Address | None, login: PasswordFile | None, *, db: int, waits: bool
) -> Node:
    connection_class, arguments = connection_to(settings, address)
    new_connection = partial(
        connection_class,
        socket_connect_timeout=settings.connect_timeout.total_seconds(),
        socket_timeout=None,  # each call has one deadline
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=False,
        driver_info=None,
        credential_provider=login,
        db=db,
        **arguments,
    )
    return Node(new_connection, address or _NO_ADDRESS, timed_out=connection_class.timed_out, waits=waits)


def _login(setting: str, username: str | None, password_file: Path | None) -> PasswordFile | None:
    return None if password_file is None else PasswordFile(setting, username, password_file)
