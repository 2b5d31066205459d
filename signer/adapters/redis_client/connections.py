"""The connections that redis-py opens: TCP, TLS and Unix socket, and the password.

* Password and certificate files are read for each new connection, so rotated ones are used without a restart.
* With TLS the server's name is verified, against the given CA only; if none is given, against the system's CAs.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    RedisSSLContext,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from signer.adapters.redis_client.failures import SERVER_REFUSALS, CannotConnect, PasswordUnusable, TlsTimeout
from signer.adapters.secret_files import KeyFileError, decode_secret, read_secret

_MAX_PASSWORD_BYTES: Final = 4096


class RedisConnection(AbstractConnection):
    """The differences from redis-py's connections that all three kinds share."""

    timed_out: type[TimeoutError] = TimeoutError
    """If no connection is open in time."""

    async def connect(self) -> None:
        """Connect and log in, within ``redis.connect_timeout`` in all: redis-py bounds the connection only.

        Raises:
            CannotConnect: no call was sent.
            RedisError: the server refuses the login.
        """
        try:
            async with asyncio.timeout(self.socket_connect_timeout):
                await super().connect()  # type: ignore[no-untyped-call]
        except SERVER_REFUSALS:
            raise
        except (RedisTimeoutError, TimeoutError):
            raise CannotConnect from self.timed_out()
        except RedisConnectionError as exc:
            if isinstance(exc.__cause__, (ResponseError, *SERVER_REFUSALS)):
                raise exc.__cause__ from None  # on a Unix socket redis-py wraps what the server responds to the login
            raise CannotConnect from exc

    async def disconnect(
        self,
        nowait: bool = False,  # noqa: FBT001, FBT002 - redis-py's own arguments
        error: Exception | None = None,
        failure_count: int | None = None,
        health_check_failed: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Abort the transport: a TLS shutdown would wait half a minute for a server that hangs."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(nowait, error, failure_count, health_check_failed)

    def detach(self) -> asyncio.StreamWriter:
        """Return the open transport. From here on redis-py knows nothing of it, and does not close it."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is None:
            raise CannotConnect
        return writer


class UnixConnection(RedisConnection, UnixDomainSocketConnection):
    """``unix://``."""


class TcpConnection(RedisConnection, Connection):
    """``redis://``."""


class TlsConnection(RedisConnection, SSLConnection):
    """``rediss://``; see ``RedisSettings`` for the files."""

    timed_out = TlsTimeout

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
    """Reads the files for each connection and trusts the given CA only (redis-py adds it to the system's CAs)."""

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
    """Reads the password for each connection, without the line end behind it; no username means ``default``."""

    def __init__(self, setting: str, username: str | None, file: Path) -> None:
        """Read nothing yet; errors name ``setting``, for example ``redis.password_file``."""
        self._setting = setting
        self._username = username
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Read the file.

        Raises:
            PasswordUnusable: it holds no password, or cannot be read.
        """
        try:
            password = read_password_text(self._file)
        except KeyFileError as refusal:
            raise PasswordUnusable(self._setting, refusal) from refusal
        return (password,) if self._username is None else (self._username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Read the file, without a thread: it is small and local."""
        return self.get_credentials()


def read_password_text(file: Path) -> str:
    """Return the password in a file, without the line end behind it; blocking.

    Raises:
        KeyFileError: the file cannot be read, or it is not certain which password it holds.
    """
    return decode_secret(read_secret(file, _MAX_PASSWORD_BYTES))
