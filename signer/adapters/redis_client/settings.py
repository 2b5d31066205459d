"""Where Redis is, who we are to it, and how long it may take. A secret is a file's path, never a part of a URL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from signer.adapters.redis_client.urls import RedisUrl, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """What is needed to open Redis.

    Attributes:
        url: see ``signer.adapters.redis_client.urls``; without user and password.
        username: the ACL user; ``None`` for the user ``default``.
        password_file: the file that holds the password; ``None`` where none is asked for.
        sentinel_username: the ACL user at the Sentinels, who have users of their own.
        sentinel_password_file: the file that holds its password; ``None`` where none is asked for.
        ca_file: PEM; the only CA that the servers' certificates may come from. ``None`` for the system's.
        cert_file: PEM; our certificate, where the servers ask for one.
        key_file: PEM; its key.
        call_timeout: the longest that one call may take.
        connect_timeout: the longest that opening a connection may take.
        max_connections: how many connections to one server, and so calls at once, there are at most.
        pool_wait: how long a call waits for one of them.
    """

    url: str
    username: str | None = None
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
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
        place = RedisUrl.parse(self.url)
        if self.username is not None and self.password_file is None:
            raise ValueError("a Redis user needs a password file")
        if self.sentinel_username is not None and self.sentinel_password_file is None:
            raise ValueError("a user of the Sentinels needs a password file for them")
        if place.topology is not Topology.SENTINEL and self.sentinel_password_file is not None:
            raise ValueError("a password for the Sentinels is for redis+sentinel:// and rediss+sentinel:// only")
        if not place.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("a CA, a certificate and a key are for rediss:// only, and for its kin that begin so")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("the client certificate and its key go together")

    @property
    def place(self) -> RedisUrl:
        """The URL, read."""
        return RedisUrl.parse(self.url)

    def describe(self) -> str:
        """Say in one line where Redis is and how it is reached, without secrets."""
        how = [_who(self.username, self.password_file)]
        if self.place.topology is Topology.SENTINEL:
            how.append(f"at the Sentinels {_who(self.sentinel_username, self.sentinel_password_file)}")
        if self.ca_file:
            how.append(f"CA {self.ca_file}")
        if self.cert_file:
            how.append(f"client certificate {self.cert_file}")
        return f"{self.url} ({', '.join(how)})"


def _who(username: str | None, password_file: Path | None) -> str:
    return f"user {username or 'default'}" if password_file else "no password"
