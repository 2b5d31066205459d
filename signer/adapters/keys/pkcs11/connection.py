"""A connection to a token: the token was found, logged in to, indexed, and has signed.

* The login lasts as long as one session of the process is open. For this each connection keeps its login session open.
  The sessions that sign need no PIN.
* A connection never changes. After any change of the token a new connection replaces it. The old login session closes
  only when the new one is open, so the login does not end in between.
* A library that was initialised before may know only tokens and slots that no longer exist. If connecting through it
  fails, the library is reinitialised and the connector tries once more.
* It also tries once more after ``CKR_GENERAL_ERROR``: SoftHSM reports this while another process writes to the token,
  as a login does, and workers start at the same time. There are no other retries here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from signer.adapters.curves import Curve
from signer.adapters.keys.backend import Progress
from signer.adapters.keys.pkcs11.cryptoki.constants import KEY_ERRORS, Ckf, Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, LibraryBusy, seconds_in_call
from signer.adapters.keys.pkcs11.errors import TokenMissing
from signer.adapters.keys.pkcs11.index import Report, TokenIndex, index_keys
from signer.adapters.keys.pkcs11.login import find_token, log_in
from signer.adapters.keys.pkcs11.modules import SharedModule, share_module
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri

_CHECKS_PER_TIMEOUT: Final = 4
_WRITE_SECONDS: Final = 0.2
"""Longer than a token writes."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TokenConnection:
    """A token that works, in a slot of one initialisation of its library."""

    cryptoki: Cryptoki
    slot: int
    login_session: int
    needs_login: bool
    index: TokenIndex

    def shares_sessions_with(self, other: TokenConnection) -> bool:
        """Return whether a session of one connection can be used for the other."""
        return self.cryptoki is other.cryptoki and self.slot == other.slot

    def check_session(self, session: int) -> None:
        """Check that a session is open and, if the token requires it, logged in.

        Raises:
            CryptokiError: it is not.
        """
        if not self.cryptoki.is_logged_in(session) and self.needs_login:
            raise CryptokiError("C_GetSessionInfo", Ckr.USER_NOT_LOGGED_IN)

    def check_signing(self, digest: bytes, curve: Curve) -> None:
        """Check that the token signs with its first key or, if that fails, with its last.

        Raises:
            CryptokiError: the token does not sign. A key that the token refuses to use is not an error of the token.
        """
        self.check_session(self.login_session)
        error: CryptokiError | None = None
        for key in (*self.index.keys[:1], *self.index.keys[1:][-1:]):
            try:
                self.cryptoki.sign(self.login_session, key.handle, digest, curve.signature_bytes)
            except CryptokiError as exc:
                error = exc
            else:
                return
        if error is not None and error.code not in KEY_ERRORS:
            raise error

    def close(self) -> None:
        """Close the login session."""
        with suppress(CryptokiError):
            self.cryptoki.close_session(self.login_session)


class TokenConnector:
    """Makes, checks and closes the connections to one token, one call after another, on its own daemon thread.

    A call that hangs cannot be cancelled. The calls after it wait in the queue until it returns.
    """

    def __init__(self, uri: Pkcs11Uri, curve: Curve, digest: bytes) -> None:
        """Create the connector. To show that a token works, a key signs ``digest``."""
        self._uri = uri
        self._curve = curve
        self._digest = digest
        self._module: SharedModule | None = None
        self._newest: TokenConnection | None = None
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pkcs11-control", daemon=True)

    def start(self) -> None:
        """Start the thread, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def connect(self, progress: Progress) -> asyncio.Future[TokenConnection]:
        """Make a new connection, and close the one before it.

        Raises:
            TokenError, LibraryUnusable, LibraryBusy, CryptokiError: the attempt failed.
        """
        loop = self._loop
        return self._submit(
            partial(self._replace, lambda done, total: loop.call_soon_threadsafe(progress, done, total))
        )

    def check(self, connection: TokenConnection) -> asyncio.Future[None]:
        """Check that the token signs; see ``TokenConnection.check_signing``."""
        return self._submit(partial(connection.check_signing, self._digest, self._curve))

    def close(self) -> asyncio.Future[None]:
        """Close the connection, release the library, and end the thread."""
        closed = self._submit(self._release)
        self._calls.put(None)
        return closed

    async def returns(self, call: asyncio.Future[Any], timeout: float) -> bool:
        """Wait for a call; return ``False`` as soon as one C call takes longer than ``timeout`` seconds."""
        while not call.done():
            await asyncio.wait({call}, timeout=timeout / _CHECKS_PER_TIMEOUT)
            if not call.done() and seconds_in_call(self._thread.ident) > timeout:
                return False
        return True

    def _submit(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        done: asyncio.Future[_T] = self._loop.create_future()
        self._calls.put((done, work))
        return done

    # --- On the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            while (call := self._calls.get()) is not None:
                done, work = call
                if done.cancelled():
                    continue
                try:
                    set_outcome = partial(done.set_result, work())
                except Exception as exc:  # noqa: BLE001 - raised where the future is awaited
                    set_outcome = partial(done.set_exception, exc)
                self._loop.call_soon_threadsafe(_unless_done, done, set_outcome)

    def _replace(self, report: Report) -> TokenConnection:
        if self._module is None:
            self._module = share_module(self._uri.module)
        connection = self._connect_or_reinitialize(self._module, report)
        previous, self._newest = self._newest, connection
        if previous is not None:
            previous.close()
        return connection

    def _connect_or_reinitialize(self, module: SharedModule, report: Report) -> TokenConnection:
        previous = module.cryptoki
        cryptoki = module.initialized()
        try:
            return self._connect(module, cryptoki, report)
        except (CryptokiError, TokenMissing) as error:
            if cryptoki is previous:
                try:
                    cryptoki = module.reinitialize(cryptoki)
                except LibraryBusy:
                    raise error from None
            elif isinstance(error, CryptokiError) and error.code == Ckr.GENERAL_ERROR:
                time.sleep(_WRITE_SECONDS)
            else:
                raise
        return self._connect(module, cryptoki, report)

    def _connect(self, module: SharedModule, cryptoki: Cryptoki, report: Report) -> TokenConnection:
        slot, token = find_token(cryptoki, self._uri)
        session = cryptoki.open_session(slot)
        try:
            log_in(module, cryptoki, session, token, self._uri.pin_file)
            index = index_keys(cryptoki, session, self._uri, self._curve, report)
            connection = TokenConnection(cryptoki, slot, session, bool(token.flags & Ckf.LOGIN_REQUIRED), index)
            # Also checks that the login lasted during the search: a logged-out session finds no key and no error.
            connection.check_signing(self._digest, self._curve)
        except BaseException:
            with suppress(CryptokiError):
                cryptoki.close_session(session)
            raise
        return connection

    def _release(self) -> None:
        if self._newest is not None:
            self._newest.close()
        if self._module is not None:
            self._module.release()
        self._newest = self._module = None


def _unless_done(future: asyncio.Future[Any], set_outcome: Callable[[], None]) -> None:
    if not future.done():
        set_outcome()
