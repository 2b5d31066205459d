"""A token that signs, and mends itself.

::

              connect                       a fault that is not one key's, and the keeper fails too
    (start) ─────────▶ up ◀──────────────────────────────┐        │
       │               │ ▲                               │        ▼
       │ fails         │ └──────── connect ───────── mending (callers wait)
       ▼               │ a call hangs                    │ fails
     down ◀────────────┴─────────────────────────────────┘
      │ ▲  callers are refused at once, with the time of the next attempt
      └─┘  connect, again and again, more and more seldom; never again after a refused PIN, until ``load`` is called

* One supervisor connects; whoever needs a connection waits for that one attempt. Between two of them lies a cooldown.
* A failed signature is no proof that the token is down: the keeper is asked, and has to sign. Where it does, the fault
  was the session's or the key's, and nothing else is disturbed.
* A token that is idle is looked at now and then, so that its loss is known before somebody needs it.
* The event loop never waits for the library: a thread connects (``_pkcs11_control``), others sign
  (``_pkcs11_sessions``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from signer.adapters.keys._cryptoki import CryptokiError, LibraryBusy
from signer.adapters.keys._cryptoki_c import LibraryUnusable
from signer.adapters.keys._cryptoki_names import FAULTS_OF_A_BUSY_TOKEN, FAULTS_OF_A_KEY, HANDLES_THAT_ARE_OLD
from signer.adapters.keys._ec_keys import Curve
from signer.adapters.keys._pkcs11_connection import Connection, PinRefused, TokenError, connect
from signer.adapters.keys._pkcs11_control import ControlThread
from signer.adapters.keys._pkcs11_index import TokenIndex
from signer.adapters.keys._pkcs11_modules import SharedModule, share_module
from signer.adapters.keys._pkcs11_sessions import SessionPool, TokenHangs
from signer.adapters.keys._pkcs11_uri import Pkcs11Uri

HealthChanged = Callable[[str | None], None]
"""Called on the event loop with what is wrong, and with ``None`` once nothing is."""
Progress = Callable[[int, int], None]

_ATTEMPTS: Final = 3
_COOLDOWN_SECONDS: Final = 1.0
_LONGEST_DELAY_SECONDS: Final = 15.0
_LOOKS_EVERY_SECONDS: Final = 10.0
_OLD_INDEX_SECONDS: Final = 30.0
_PATIENCE_TO_CONNECT: Final = 10  # times that of a signature: some libraries take seconds to initialise
_CLOSES_WITHIN_SECONDS: Final = 2.0
_REFUSED_RETRY_AFTER: Final = 30.0
_POLL_SECONDS: Final = 0.01


class TokenUnavailable(Exception):
    """The token, or the key in it, does not sign now; the text says why and holds no secret.

    Attributes:
        retry_after: seconds after which it makes sense to ask again.
    """

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Token:
    """One token, as a URI names it.

    Attributes:
        problem: why nothing can be signed with it; ``None`` while it works, and while it is being mended for the
            first time since it did.
    """

    def __init__(self, uri: Pkcs11Uri, curve: Curve, digest: bytes, health_changed: HealthChanged) -> None:
        """Name the token; nothing is loaded or opened before ``load``.

        Args:
            uri: which token, and which of its keys.
            curve: of the keys.
            digest: what a key signs to show that it does.
            health_changed: told of ``problem``.
        """
        self.problem: str | None = None
        self._uri = uri
        self._curve = curve
        self._digest = digest
        self._health_changed = health_changed
        self._module: SharedModule | None = None
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._next_attempt_at = 0.0
        self._delay = 0.0
        self._pin_was_refused = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._asked: list[tuple[asyncio.Future[TokenIndex], Progress]] = []
        self._examination: asyncio.Task[None] | None = None
        self._started: tuple[ControlThread, SessionPool, asyncio.Task[None]] | None = None
        self._is_closed = False

    # --- What its users want ------------------------------------------------------------------------------------------

    async def load(self, progress: Progress) -> TokenIndex:
        """Connect, or connect anew, and give the keys; a PIN that was refused is tried again if its file has changed.

        Raises:
            TokenUnavailable: it cannot be done.
        """
        if self._is_closed:
            raise TokenUnavailable("the token has been closed", _REFUSED_RETRY_AFTER)
        asked: asyncio.Future[TokenIndex] = asyncio.get_running_loop().create_future()
        self._asked.append((asked, progress))
        self._wake.set()
        if self._started is None:
            control = ControlThread()
            pool = SessionPool(self._uri.sessions, self._curve.signature_bytes, self._uri.timeout, self._hung)
            self._started = control, pool, asyncio.create_task(self._supervise(control, pool))
        return await asked

    async def sign(self, public_key: bytes, digest: bytes) -> bytes:
        """Sign a digest with the key of ``public_key`` (``X ‖ Y``).

        Returns:
            ``r ‖ s``.

        Raises:
            TokenUnavailable: the token, or this key, does not sign.
        """
        error: Exception | None = None
        for _ in range(_ATTEMPTS):
            connection = self._connection or await self._mended()
            handle = connection.index.handle_for.get(public_key)
            if handle is None or self._started is None:
                raise TokenUnavailable("the key is not in the token any more", _REFUSED_RETRY_AFTER) from error
            try:
                return await self._started[1].sign(connection, handle, digest)
            except TokenHangs as exc:
                raise self._unavailable() from exc
            except CryptokiError as exc:
                error = exc
            if error.code in FAULTS_OF_A_KEY:
                raise TokenUnavailable(f"the token does not sign with this key ({error})", _REFUSED_RETRY_AFTER) from error
            if error.code in FAULTS_OF_A_BUSY_TOKEN:
                raise TokenUnavailable(f"the token has too much to do ({error})", _COOLDOWN_SECONDS) from error
            await self._examine(connection, error)
        raise TokenUnavailable(f"the token does not sign with this key ({error})", _COOLDOWN_SECONDS) from error

    async def close(self) -> None:
        """Close the sessions and let go of the library, unless a call hangs."""
        self._is_closed = True
        if self._started is None:
            return
        control, pool, supervisor = self._started
        self._started = None
        supervisor.cancel()
        await asyncio.wait({supervisor})
        if self._examination is not None:
            await asyncio.wait({self._examination})
        connection, self._connection = self._connection, None
        self._problem_is("the token has been closed")
        self._answer(TokenUnavailable("the token has been closed", _REFUSED_RETRY_AFTER))
        pool.close()
        ends = time.monotonic() + _CLOSES_WITHIN_SECONDS
        while not pool.is_ended and time.monotonic() < ends:
            await asyncio.sleep(_POLL_SECONDS)
        released = control.submit(partial(self._let_go, connection))
        control.close()
        await asyncio.wait({released}, timeout=_CLOSES_WITHIN_SECONDS)

    # --- The supervisor -----------------------------------------------------------------------------------------------

    async def _supervise(self, control: ControlThread, pool: SessionPool) -> None:
        while True:
            await self._connect(control, pool)
            while not self._asked and (self._connection is not None or not await self._is_time_to_mend()):
                await self._sleep(_LOOKS_EVERY_SECONDS)
                if self._connection is not None and not self._wake.is_set():
                    await self._look(control, self._connection)
