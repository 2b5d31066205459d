"""A token that signs, whatever becomes of its sessions.

* A failed signature is no proof that the token is down: the keeper is asked, and has to sign. Where it does, the fault
  was the session's or the key's, a new session tries again, and nothing else is disturbed.
* Where the keeper fails too, the token is mended (``_pkcs11_supervisor``), and whoever wanted a signature waits for
  that and tries again.
* A call that hangs is not tried again; the token is down until it has been seen to work.
* The event loop never waits for the library: one thread connects (``_pkcs11_control``), others sign
  (``_pkcs11_sessions``).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from signer.adapters.keys.pkcs11.connection import Connection, Connector
from signer.adapters.keys.pkcs11.cryptoki.constants import FAULTS_OF_A_BUSY_TOKEN, FAULTS_OF_A_KEY, HANDLES_THAT_ARE_OLD
from signer.adapters.keys.pkcs11.cryptoki.library import CryptokiError
from signer.adapters.keys.pkcs11.curves import Curve
from signer.adapters.keys.pkcs11.index import TokenIndex
from signer.adapters.keys.pkcs11.sessions import SessionPool, TokenHangs
from signer.adapters.keys.pkcs11.supervisor import (
    COOLDOWN_SECONDS,
    HealthChanged,
    Progress,
    Supervisor,
    TokenUnavailable,
)
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri

__all__ = ["Token", "TokenUnavailable"]

_ATTEMPTS: Final = 3
_OLD_INDEX_SECONDS: Final = 30.0


class Token:
    """One token, as a URI names it, for the event loop that loads it."""

    def __init__(self, uri: Pkcs11Uri, curve: Curve, digest: bytes, health_changed: HealthChanged) -> None:
        """Name the token; nothing is loaded or opened before ``load``.

        Args:
            uri: which token, and which of its keys.
            curve: of the keys.
            digest: what a key signs to show that it does.
            health_changed: told of ``problem``.
        """
        self._uri = uri
        self._curve = curve
        self._health_changed = health_changed
        self._connector = Connector(uri, curve, digest)
        self._open: tuple[Supervisor, SessionPool] | None = None
        self._examination: asyncio.Task[None] | None = None
        self._process = 0

    @property
    def problem(self) -> str | None:
        """Why nothing can be signed; ``None`` while it works, or is being mended for the first time since it did."""
        return None if self._open is None else self._open[0].problem

    def unavailable_for(self) -> float | None:
        """Say after how many seconds it makes sense to ask again, where nothing can be signed now."""
        return None if self.problem is None or self._open is None else self._open[0].unavailable().retry_after

    async def load(self, progress: Progress) -> TokenIndex:
        """Connect, or connect anew, and give the keys; a PIN that was refused is tried again if its file has changed.

        Raises:
            TokenUnavailable: it cannot be done.
        """
        if self._open is None:
            pool = SessionPool(self._uri.sessions, self._curve.signature_bytes, self._uri.timeout)
            supervisor = Supervisor(self._connector, pool, self._uri.timeout, self._health_changed)
            self._open = supervisor, pool
            self._process = os.getpid()
        supervisor, _ = self._opened()
        return await supervisor.load(progress)

    async def sign(self, public_key: bytes, digest: bytes) -> bytes:
        """Sign a digest with the key of ``public_key`` (``X ‖ Y``).

        Returns:
            ``r ‖ s``.

        Raises:
            TokenUnavailable: the token, or this key, does not sign.
        """
        supervisor, pool = self._opened()
        error: CryptokiError | None = None
        for _ in range(_ATTEMPTS):
            connection = supervisor.connection or await supervisor.mended()
            handle = connection.index.handle_for.get(public_key)
            if handle is None:
                raise _unavailable("the key is not in it any more") from error
            try:
                return await pool.sign(connection, handle, digest)
            except TokenHangs as exc:
                raise supervisor.unavailable() from exc
            except CryptokiError as exc:
                error = exc
            if error.code in FAULTS_OF_A_KEY:
                raise _unavailable(f"it does not do so with this key ({error})") from error
            if error.code in FAULTS_OF_A_BUSY_TOKEN:
                raise _unavailable(f"it has too much to do ({error})", COOLDOWN_SECONDS) from error
            await self._examine(supervisor, connection, error)
        raise _unavailable(f"it does not do so with this key ({error})", COOLDOWN_SECONDS) from error

    async def close(self) -> None:
        """Close the sessions and let go of the library, unless a call hangs."""
        if self._open is None:
            return
        (supervisor, pool), self._open = self._open, None
        await supervisor.stop()
        await pool.close()
        await supervisor.close()

    def _opened(self) -> tuple[Supervisor, SessionPool]:
        if self._open is None or self._process != os.getpid():  # no thread of ours has come along into a fork
            raise TokenUnavailable("the token has not been opened in this process", "it has not been opened")
        return self._open

    async def _examine(self, supervisor: Supervisor, connection: Connection, error: CryptokiError) -> None:
        """Find out, once for all who ask, whether it is the token that has failed; if so, it is mended."""
        if connection is not supervisor.connection:
            return
        if self._examination is None or self._examination.done():
            self._examination = asyncio.create_task(supervisor.look_at(connection, self._connector.check_signing))
        await asyncio.shield(self._examination)
        index_is_old = time.monotonic() - supervisor.connected_at > _OLD_INDEX_SECONDS
        if error.code in HANDLES_THAT_ARE_OLD and index_is_old:
            supervisor.has_failed(connection)


def _unavailable(reason: str, retry_after: float | None = None) -> TokenUnavailable:
    return TokenUnavailable(reason, reason) if retry_after is None else TokenUnavailable(reason, reason, retry_after)
