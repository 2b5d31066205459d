"""The kinds of connection that redis-py is given: TCP, TLS and Unix socket, and where the password comes from.

* Password and certificates are read again at each new connection, so rotated ones come into use without a restart.
* With TLS the server's name is verified, against the given CA and no other; without one, against the system's.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import hiredis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    RedisSSLContext,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from signer.adapters.redis_client.failures import ANSWERS, CannotConnect


class _OurConnection(AbstractConnection):
    """What all three kinds do otherwise than redis-py's."""

    def pack_command(self, *args: Any) -> list[bytes]:  # noqa: ANN401 - redis-py's own arguments
        """Pack in C, as redis-py does for its synchronous connections: it takes a seventh of the time."""
        if " " in str(args[0]):  # redis-py's own spelling of a command of two words
            return super().pack_command(*args)
        return [hiredis.pack_command(args)]

    async def connect(self) -> None:
        """Connect, and tell a connection that there never was from one that broke: then nothing was asked.

        Raises:
            CannotConnect: there is none.
            RedisError: the server is there, and answers that it does not want us, or is not ready.
        """
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except ANSWERS:
            raise
        except (RedisConnectionError, RedisTimeoutError) as exc:
            raise CannotConnect from exc

    async def disconnect(
        self,
        nowait: bool = False,  # noqa: FBT001, FBT002 - redis-py's own arguments
        error: Exception | None = None,
        failure_count: int | None = None,
        health_check_failed: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Drop it: closing it with TLS would wait half a minute for the farewell of a server that hangs."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(nowait, error, failure_count, health_check_failed)


class UnixConnection(_OurConnection, UnixDomainSocketConnection):
    """``unix://``."""


class TcpConnection(_OurConnection, Connection):
    """``redis://``."""


class TlsConnection(_OurConnection, SSLConnection):
    """``rediss://``; see ``RedisSettings`` for the files."""

    def __init__(
        self,
        *,
        ca_file: Path | None,
        cert_file: Path | None,
        key_file: Path | None,
        **kwargs: Any,  # noqa: ANN401 - redis-py's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.ssl_context = _FreshTlsContext(ca_file, cert_file, key_file)


class _FreshTlsContext(RedisSSLContext):
    """Reads the files at each connection, and trusts the given CA alone (redis-py's own adds it to the system's)."""

    def __init__(self, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> None:
        super().__init__(cert_reqs="required", check_hostname=True)
        self._files = (ca_file, cert_file, key_file)

    def get(self) -> ssl.SSLContext:
        ca_file, cert_file, key_file = self._files
        try:
            context = ssl.create_default_context(cafile=ca_file)
            if cert_file is not None:
                context.load_cert_chain(cert_file, key_file)
        except OSError as exc:
            raise ssl.SSLError("the CA, the certificate or its key cannot be read") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class PasswordFile(CredentialProvider):
    """Reads the password anew at each connection; a line's end behind it does not belong to it.

    Args:
        username: the ACL user; ``None`` for the user ``default``.
        file: where the password is.
    """

    def __init__(self, username: str | None, file: Path) -> None:
        self._username = username
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Read the file.

        Raises:
            AuthenticationError: it cannot be read. An error of redis-py's own: with any other it would keep, and
                use again, the connection that is not logged in.
        """
        try:
            password = self._file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as exc:
            raise AuthenticationError("the password file cannot be read") from exc
        return (password,) if self._username is None else (self._username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Read the file: it is small, and local."""
        return self.get_credentials()
