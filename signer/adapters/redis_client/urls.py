"""The URL of Redis: one server, the Sentinels that know the primary, or some nodes of a cluster.

====================================================  ==================================================
``redis://host[:6379][/database]``                    one server; ``rediss://`` with TLS
``unix:///path/of/the/socket[?db=database]``          one server on this machine
``redis+sentinel://host[:26379],…/name[/database]``   the primary that these Sentinels know by ``name``
``redis+cluster://host[:6379],…``                     the cluster that these nodes belong to
====================================================  ==================================================

* ``rediss+sentinel://`` and ``rediss+cluster://`` use TLS for every connection, including those to the Sentinels.
* A user or a password in the URL is refused: secrets are file paths. Error texts never quote the URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_HIGHEST_PORT: Final = 65535


class Deployment(Enum):
    """How the servers are organised: what the scheme of the URL ends with."""

    SINGLE = ""
    SENTINEL = "+sentinel"
    CLUSTER = "+cluster"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A TCP address. A host name is resolved again for each new connection."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A parsed URL. It has either ``addresses`` or ``socket``, and a ``service`` (the name) only for Sentinel."""

    deployment: Deployment = Deployment.SINGLE
    tls: bool = False
    addresses: tuple[Address, ...] = ()
    socket: str = ""
    service: str = ""
    database: int = 0

    @property
    def servers(self) -> str:
        """The addresses or the socket, for the log."""
        return ", ".join(map(str, self.addresses)) or self.socket

    @classmethod
    def parse(cls, text: str) -> RedisUrl:
        """Parse a URL; raise ``ValueError``, which never quotes it."""
        scheme, separator, rest = text.partition("://")
        location, _, query = rest.partition("?")
        authority, _, path = location.partition("/")
        if "@" in authority or "password" in query or "username" in query:
            raise ValueError(
                "the Redis URL must not hold a user or a password; set the user's name and a password file"
            )
        if scheme == "unix" and separator:
            found = re.fullmatch(r"unix://(/[^?#]+)(?:\?db=([^&#]+))?", text)
            if found is None:
                raise ValueError("the Redis URL has to be unix:///path/of/the/socket?db=database")
            return cls(socket=unquote(found[1]), database=_database(found[2] or "0"))
        base, plus, kind = scheme.partition("+")
        deployment = next((each for each in Deployment if each.value == plus + kind), None)
        if not separator or base not in {"redis", "rediss"} or deployment is None:
            raise ValueError(
                "the Redis URL has to begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
                "redis+cluster:// or rediss+cluster://",
            )
        if query or "?" in rest or "#" in rest:
            raise ValueError("the Redis URL must not have parameters")
        addresses = _addresses(authority, _SENTINEL_PORT if deployment is Deployment.SENTINEL else _PORT)
        service = ""
        if deployment is Deployment.SENTINEL:
            service, _, path = path.partition("/")
            if not service:
                raise ValueError("the Redis URL names no primary: redis+sentinel://host:port,…/name/database")
        elif deployment is Deployment.SINGLE and len(addresses) > 1:
            raise ValueError("the Redis URL names several servers: begin it with redis+sentinel:// or redis+cluster://")
        database = _database(path)
        if deployment is Deployment.CLUSTER and database:
            raise ValueError("the Redis URL names a database, and a cluster has database 0 only")
        tls, service = base == "rediss", unquote(service)
        return cls(deployment=deployment, tls=tls, addresses=addresses, service=service, database=database)


def _addresses(authority: str, default_port: int) -> tuple[Address, ...]:
    addresses = tuple(_address(text, default_port) for text in authority.split(","))
    if len(set(addresses)) < len(addresses):
        raise ValueError("the Redis URL names a host twice")
    return addresses


def _address(text: str, port: int) -> Address:
    if text.startswith("["):  # IPv6, RFC 3986 section 3.2.2
        host, bracket, rest = text[1:].partition("]")
        name, colon, digits = (host if bracket else ""), rest[:1], rest[1:]
        if colon not in {"", ":"}:
            name = ""
    else:
        name, colon, digits = text.partition(":")
    if not name or any(character.isspace() for character in name):
        raise ValueError("the Redis URL lacks a host or has an invalid one")
    if colon:
        if not (digits.isascii() and digits.isdecimal() and 0 < int(digits) <= _HIGHEST_PORT):
            raise ValueError("the Redis URL has an invalid port")
        port = int(digits)
    return Address(name, port)


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError("the Redis URL has to end with the number of a database, or without one")
    return int(text or 0)
