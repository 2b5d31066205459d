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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from signer.adapters.keys._cryptoki import CryptokiError, LibraryBusy
from signer.adapters.keys._cryptoki_c import LibraryUnusable
from signer.adapters.keys._cryptoki_names import FAULTS_OF_A_BUSY_TOKEN, FAULTS_OF_A_KEY, HANDLES_THAT_ARE_OLD
from signer.adapters.keys._ec_keys import Curve
from signer.adapters.keys._pkcs11_connection import Connection, PinRefused, TokenError, connect
from signer.adapters.keys._pkcs11_control import ControlThread
from signer.adapters.keys._pkcs11_index import KeysDone, TokenIndex
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
_HANGS: Final = "the token does not answer: a call into its library has not come back"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Somebody who wants the keys."""

    index: asyncio.Future[TokenIndex]
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Threads:
    """What works for the token while it is open."""

    control: ControlThread
    pool: SessionPool


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
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._next_attempt_at = 0.0
        self._delay = 0.0
        self._pin_was_refused = False
        self._is_closed = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._asked: list[_Asked] = []
        self._in_turn: list[_Asked] = []
        self._examination: asyncio.Task[None] | None = None
        self._threads: _Threads | None = None
        # The control thread's:
        self._module: SharedModule | None = None
        self._opened: Connection | None = None

    # --- What its users want ------------------------------------------------------------------------------------------

    async def load(self, progress: Progress) -> TokenIndex:
        """Connect, or connect anew, and give the keys; a PIN that was refused is tried again if its file has changed.

        Raises:
            TokenUnavailable: it cannot be done.
        """
        if self._is_closed:
            raise TokenUnavailable("the token has been closed", _REFUSED_RETRY_AFTER)
        asked = _Asked(asyncio.get_running_loop().create_future(), progress)
        self._asked.append(asked)
        self._wake.set()
        if self._threads is None:
            pool = SessionPool(self._uri.sessions, self._curve.signature_bytes, self._uri.timeout, self._hangs)
            self._threads = _Threads(ControlThread(), pool)
            self._supervisor = asyncio.create_task(self._supervise(self._threads))
        return await asked.index

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
            if handle is None or self._threads is None:
                raise TokenUnavailable("the key is not in the token any more", _REFUSED_RETRY_AFTER) from error
            try:
                return await self._threads.pool.sign(connection, handle, digest)
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
        threads, self._threads = self._threads, None
        if threads is None:
            return
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})
        self._connection = None
        self._problem_is("the token has been closed")
        self._settled.set()
        self._in_turn += self._asked
        self._answer(self._unavailable())
        threads.pool.close()
        ends = time.monotonic() + _CLOSES_WITHIN_SECONDS
        while not threads.pool.is_ended and time.monotonic() < ends:
            await asyncio.sleep(_POLL_SECONDS)
        released = threads.control.submit(self._let_go)
        threads.control.close()
        await asyncio.wait({released}, timeout=_CLOSES_WITHIN_SECONDS)

    # --- The supervisor -----------------------------------------------------------------------------------------------

    async def _supervise(self, threads: _Threads) -> None:
        while True:
            was_woken = await self._rest()
            if self._asked or self._is_time_to_connect():
                await self._connect(threads)
            elif self._connection is not None and not was_woken:
                await self._ask_keeper(threads.control, self._connection, Connection.check_login)

    async def _rest(self) -> bool:
        """Wait until there is something to do; tell whether somebody said so."""
        rest: float | None = _LOOKS_EVERY_SECONDS
        if self._connection is None:
            rest = None if self._pin_was_refused else max(0.0, self._next_attempt_at - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await self._wake.wait()
        was_woken = self._wake.is_set()
        self._wake.clear()
        return was_woken

    def _is_time_to_connect(self) -> bool:
        is_wanted = self._connection is None and not self._pin_was_refused
        return is_wanted and time.monotonic() >= self._next_attempt_at

    async def _connect(self, threads: _Threads) -> None:
        """Connect once, however long it takes; who waits for it hears of a hang, of an error or of the keys."""
        self._in_turn, self._asked = self._asked, []
        opening = threads.control.submit(partial(self._open, self._progress_of(self._in_turn)))
        while not await threads.control.comes_back(opening, _PATIENCE_TO_CONNECT * self._uri.timeout):
            self._is_down(_HANGS)
            self._in_turn, self._asked = self._in_turn + self._asked, []
            self._answer(self._unavailable())
        try:
            connection = opening.result()
        except Exception as exc:  # noqa: BLE001 - the supervisor lives on, whatever it was
            self._pin_was_refused = isinstance(exc, PinRefused)
            if self._connection is None:
                self._is_down(_told(exc))
            self._answer(TokenUnavailable(_told(exc), self._unavailable().retry_after), exc)
        else:
            self._is_up(connection)
            threads.pool.replace_hanging()
            self._answer(connection.index)

    def _progress_of(self, asked: Sequence[_Asked]) -> KeysDone:
        loop = asyncio.get_running_loop()

        def keys_done(done: int, total: int) -> None:
            for each in asked:
                loop.call_soon_threadsafe(each.progress, done, total)

        return keys_done

    def _answer(self, outcome: TokenIndex | TokenUnavailable, cause: Exception | None = None) -> None:
        in_turn, self._in_turn = self._in_turn, []
        for asked in in_turn:
            if asked.index.done():
                continue
            if isinstance(outcome, TokenIndex):
                asked.index.set_result(outcome)
            else:
                outcome.__cause__ = cause
                asked.index.set_exception(outcome)

    # --- What is known of the token -----------------------------------------------------------------------------------

    async def _mended(self) -> Connection:
        """Wait for the attempt to connect that is due or under way, unless one has failed already."""
        if self.problem is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._uri.timeout):
                    await self._settled.wait()
        if self._connection is None:
            raise self._unavailable()
        return self._connection

    async def _examine(self, connection: Connection, error: CryptokiError) -> None:
        """Find out, once for all who ask, whether it is the token that has failed; if so, have it mended."""
        if connection is not self._connection or self._threads is None:
            return
        if self._examination is None or self._examination.done():
            check = partial(Connection.check_signing, digest=self._digest, curve=self._curve)
            self._examination = asyncio.create_task(self._ask_keeper(self._threads.control, connection, check))
        await asyncio.shield(self._examination)
        index_is_old = time.monotonic() - self._connected_at > _OLD_INDEX_SECONDS
        if error.code in HANDLES_THAT_ARE_OLD and index_is_old:
            self._has_failed(connection)

    async def _ask_keeper(
        self,
        control: ControlThread,
        connection: Connection,
        check: Callable[[Connection], None],
    ) -> None:
        checked = control.submit(partial(check, connection))
        if not await control.comes_back(checked, self._uri.timeout):
            self._hangs()
        elif checked.exception() is not None:
            self._has_failed(connection)

    def _is_up(self, connection: Connection) -> None:
        self._connection = connection
        self._connected_at = time.monotonic()
        self._delay = 0.0
        self._settled.set()
        self._problem_is(None)

    def _has_failed(self, connection: Connection) -> None:
        """Have the supervisor mend it, after the cooldown; whoever needs it waits."""
        if connection is self._connection:
            self._connection = None
            self._next_attempt_at = self._connected_at + _COOLDOWN_SECONDS
            self._settled.clear()
            self._wake.set()

    def _hangs(self) -> None:
        """Refuse everybody until the supervisor has found that it works again."""
        self._is_down(_HANGS)
        self._next_attempt_at = time.monotonic()
        self._wake.set()

    def _is_down(self, problem: str) -> None:
        self._connection = None
        self._delay = min(max(_COOLDOWN_SECONDS, 2 * self._delay), _LONGEST_DELAY_SECONDS)
        self._next_attempt_at = time.monotonic() + self._delay
        self._settled.set()
        self._problem_is(problem)

    def _problem_is(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            self._health_changed(problem)

    def _unavailable(self) -> TokenUnavailable:
        retry_after = max(_COOLDOWN_SECONDS, self._next_attempt_at - time.monotonic())
        if self._pin_was_refused or self._is_closed:
            retry_after = _REFUSED_RETRY_AFTER
        return TokenUnavailable(self.problem or "the token is being connected to again", retry_after)

    # --- On the control thread ----------------------------------------------------------------------------------------

    def _open(self, keys_done: KeysDone) -> Connection:
        """Connect, and close the keeper that was."""
        if self._module is None:
            self._module = share_module(self._uri.module)
        opened = connect(self._module, self._uri, self._curve, self._digest, keys_done)
        previous, self._opened = self._opened, opened
        if previous is not None:
            previous.close()
        return opened

    def _let_go(self) -> None:
        if self._opened is not None:
            self._opened.close()
        if self._module is not None:
            self._module.release()


def _told(exc: Exception) -> str:
    if isinstance(exc, TokenError | CryptokiError | LibraryBusy | LibraryUnusable):
        return str(exc)
    return f"the token cannot be used ({type(exc).__name__})"
