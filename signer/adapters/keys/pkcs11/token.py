"""One token: it signs, recovers from failures, and reports its health.

::

    (start) ──connected──▶ CONNECTED ──token failed──▶ RECOVERING ──connected──▶ CONNECTED
       │                    ▲     │                        │
       │ failed   connected │     │ a call hangs           │ failed, or a call hangs
       └──────────────────▶ DOWN ◀┴────────────────────────┘

* While the token recovers, callers wait. While it is down they are refused at once, with a time for the retry.
* One task makes all connections, one at a time, with a pause after each failure. After a refused PIN it makes none
  before the next ``load``.
* A signature that failed does not prove that the token failed. The connector checks whether the token still signs. If
  it does, only the signature is tried again; if not, the token is connected to again, once for all callers.
* A call that hangs is not repeated. The token is down until it signs again.
* An idle token is checked regularly. It has to sign: some libraries report a live session without asking the token.
* All state belongs to the event loop. Blocking calls run on the threads of ``connection`` and ``sessions``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from signer.adapters.curves import Curve
from signer.adapters.keys.backend import Problem, Progress
from signer.adapters.keys.pkcs11.connection import TokenConnection, TokenConnector
from signer.adapters.keys.pkcs11.cryptoki.constants import KEY_ERRORS, OVERLOAD_ERRORS, STALE_HANDLE_ERRORS
from signer.adapters.keys.pkcs11.cryptoki.library import CryptokiError
from signer.adapters.keys.pkcs11.errors import PinRefused, TokenUnavailable, problem_of
from signer.adapters.keys.pkcs11.index import TokenIndex
from signer.adapters.keys.pkcs11.sessions import NoSession, SessionPool
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri
from signer.application.backoff import Backoff

ProblemChanged = Callable[[Problem | None], None]
"""Called on the event loop with the problem when the token stops working, and with ``None`` when it works again."""

COOLDOWN_SECONDS: Final = 1.0
"""A connection that fails is replaced no sooner than this after it was made."""
BACKOFF: Final = Backoff(first_pause=timedelta(seconds=2), longest_pause=timedelta(seconds=15))
"""No pause is shorter than the cooldown: each attempt may reinitialise the library, and other tokens have to follow."""
_CHECK_INTERVAL: Final = 10.0
_CONNECT_TIMEOUT_FACTOR: Final = 10  # some libraries need seconds to initialise
_CLOSE_TIMEOUT: Final = 2.0
_SIGN_ATTEMPTS: Final = 3
_OLD_INDEX_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Load:
    """A call of ``load`` that waits for a connection."""

    index: asyncio.Future[TokenIndex]
    progress: Progress


class Pkcs11Token:
    """The token that a URI names, and its keys. It belongs to the process and event loop of the first ``load``.

    Attributes:
        problem: why the token is down; ``None`` if it works or recovers.
    """

    def __init__(self, uri: Pkcs11Uri, curve: Curve, digest: bytes, problem_changed: ProblemChanged) -> None:
        """Create it; nothing is loaded or opened before ``load``. A key signs ``digest`` to show that it works."""
        self.problem: Problem | None = None
        self._call_timeout = uri.timeout
        self._problem_changed = problem_changed
        self._connector = TokenConnector(uri, curve, digest)
        self._pool = SessionPool(uri.sessions, curve.signature_bytes, uri.timeout, self._on_hang)
        self._connection: TokenConnection | None = None
        self._connected_at = 0.0
        self._public_reason = ""
        self._failures = 0
        self._next_attempt_at = 0.0
        self._needs_operator = False
        self._load: _Load | None = None
        self._load_lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._is_settled = asyncio.Event()  # connected or down, not recovering
        self._check: asyncio.Task[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._process = 0

    # --- For callers --------------------------------------------------------------------------------------------------

    def unavailable_for(self) -> float | None:
        """Return for how many seconds at least the token is down; ``None`` if it is not."""
        return None if self.problem is None else self._unavailable().retry_after

    async def load(self, progress: Progress) -> TokenIndex:
        """Connect, or connect again, and return the keys. A refused PIN is tried again if its file has changed.

        Raises:
            TokenUnavailable: the token cannot be used.
        """
        if self._supervisor is None:
            self._process = os.getpid()
            self._connector.start()
            self._pool.start()
            self._supervisor = asyncio.create_task(self._supervise())
        self._check_process()
        async with self._load_lock:
            self._load = _Load(asyncio.get_running_loop().create_future(), progress)
            self._wake.set()
            try:
                return await self._load.index
            finally:
                self._load = None

    async def sign(self, public_key: bytes, digest: bytes, uri: str = "") -> bytes:
        """Sign a digest with the key of ``public_key`` (``X ‖ Y``) or else of ``uri``, and return ``r ‖ s``.

        Raises:
            TokenUnavailable: the token, or this key, does not sign.
        """
        self._check_process()
        error: CryptokiError | None = None
        for _ in range(_SIGN_ATTEMPTS):
            connection = self._connection or await self._recovered()
            handle_for = connection.index.handle_for
            handle = handle_for.get(public_key) or handle_for.get(uri)  # 0 is no handle (v2.40 §4.4)
            if handle is None:
                raise TokenUnavailable("the key is not in it any more") from error
            try:
                return await self._pool.sign(connection, handle, digest)
            except NoSession as exc:
                raise self._unavailable() from exc
            except CryptokiError as exc:
                error = exc
            if error.code in KEY_ERRORS:
                raise TokenUnavailable(f"it does not sign with this key ({error})") from error
            if error.code in OVERLOAD_ERRORS:
                raise TokenUnavailable(f"it is overloaded ({error})", None, COOLDOWN_SECONDS) from error
            await self._check_after(error, connection)
        raise TokenUnavailable(f"it does not sign with this key ({error})", None, COOLDOWN_SECONDS) from error

    async def close(self) -> None:
        """Close the sessions and release the library, unless a call hangs."""
        if self._supervisor is None or self._process != os.getpid():
            return
        self._process = 0
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})
        self._needs_operator = True
        self._connection, self._public_reason = None, "it has been closed"
        self.problem = Problem("error", "the token has been closed")
        self._is_settled.set()
        _settle(self._load, self._unavailable())
        await self._pool.close()
        await asyncio.wait({self._connector.close()}, timeout=_CLOSE_TIMEOUT)

    def _check_process(self) -> None:
        if self._process != os.getpid():  # a forked child has none of our threads
            raise TokenUnavailable("the token has not been opened in this process", "it has not been opened")

    async def _recovered(self) -> TokenConnection:
        """Wait for the end of the first attempt to recover, at most for the timeout of a call."""
        if self.problem is None:
            try:
                async with asyncio.timeout(self._call_timeout):
                    await self._is_settled.wait()
            except TimeoutError:
                if self._connection is None and self.problem is None:  # the attempt goes on; later callers do not wait
                    self._set_problem(
                        Problem("timeout", "reconnecting to the token takes long"), "it is being reconnected"
                    )
        if self._connection is None:
            raise self._unavailable()
        return self._connection

    def _unavailable(self) -> TokenUnavailable:
        cause, reason = self.problem or Problem("error", "the token is being reconnected")
        if self._needs_operator:
            return TokenUnavailable(reason, self._public_reason, cause=cause)
        retry_after = max(COOLDOWN_SECONDS, self._next_attempt_at - time.monotonic())
        return TokenUnavailable(reason, self._public_reason or "it is being reconnected", retry_after, cause=cause)

    # --- Checking -----------------------------------------------------------------------------------------------------

    async def _check_after(self, error: CryptokiError, connection: TokenConnection) -> None:
        """Check, once for all callers, whether the token failed, and connect again if it did or if its index is old."""
        if connection is not self._connection:
            return
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._check_signing(connection))
        await asyncio.shield(self._check)
        index_is_old = time.monotonic() - self._connected_at > _OLD_INDEX_SECONDS
        if error.code in STALE_HANDLE_ERRORS and index_is_old:
            self._recover(connection)

    async def _check_signing(self, connection: TokenConnection) -> None:
        checked = self._connector.check(connection)
        if not await self._connector.returns(checked, self._call_timeout):
            self._on_hang()
        elif checked.exception() is not None:
            self._recover(connection)

    def _recover(self, connection: TokenConnection) -> None:
        """Connect again after the cooldown. Callers wait."""
        if connection is self._connection:
            self._connection = None
            self._next_attempt_at = self._connected_at + COOLDOWN_SECONDS
            self._is_settled.clear()
            self._wake.set()

    def _on_hang(self) -> None:
        """Refuse all callers until the token signs again."""
        self._set_down(Problem("timeout", "a call into the token's library does not return"), "it does not respond")
        self._next_attempt_at = time.monotonic()
        self._wake.set()

    # --- Connecting ---------------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while True:
            was_woken = await self._wait_for_work()
            is_due = self._connection is None and not self._needs_operator and time.monotonic() >= self._next_attempt_at
            if is_due or (self._load is not None and not self._load.index.done()):
                await self._connect()
            elif self._connection is not None and not was_woken:
                await self._check_signing(self._connection)

    async def _wait_for_work(self) -> bool:
        """Wait for ``_wake``, the next attempt or the next check; return whether it was ``_wake``."""
        pause: float | None = _CHECK_INTERVAL
        if self._connection is None:
            pause = None if self._needs_operator else max(0.0, self._next_attempt_at - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        was_woken = self._wake.is_set()
        self._wake.clear()
        return was_woken

    async def _connect(self) -> None:
        """Make one attempt, however long it takes. If it hangs, callers are refused meanwhile."""
        load = self._load
        connecting = self._connector.connect((lambda _done, _total: None) if load is None else load.progress)
        while not await self._connector.returns(connecting, _CONNECT_TIMEOUT_FACTOR * self._call_timeout):
            self._on_hang()
            _settle(self._load, self._unavailable())
        try:
            connection = connecting.result()
        except Exception as exc:  # noqa: BLE001 - whatever it was, the next attempt follows
            self._needs_operator = isinstance(exc, PinRefused)
            if self._connection is None:
                self._set_down(*problem_of(exc))
            problem, public_reason = problem_of(exc)
            retry_after = self._unavailable().retry_after
            unavailable = TokenUnavailable(problem.reason, public_reason, retry_after, cause=problem.cause)
            unavailable.__cause__ = exc
            _settle(load, unavailable)
            return
        if self._pool.replace_hung_threads():
            self._set_connected(connection)
            _settle(load, connection.index)
        else:
            problem = Problem("timeout", "every thread hangs in a call into the token's library: restart")
            self._set_down(problem, "it does not respond")
            _settle(load, self._unavailable())

    def _set_connected(self, connection: TokenConnection) -> None:
        self._connection = connection
        self._connected_at = time.monotonic()
        self._failures = 0
        self._needs_operator = False
        self._is_settled.set()
        self._set_problem(None, "")

    def _set_down(self, problem: Problem, public_reason: str) -> None:
        self._connection = None
        self._failures += 1
        self._next_attempt_at = time.monotonic() + BACKOFF.pause_after(self._failures).total_seconds()
        self._is_settled.set()
        self._set_problem(problem, public_reason)

    def _set_problem(self, problem: Problem | None, public_reason: str) -> None:
        self._public_reason = public_reason
        if problem != self.problem:
            self.problem = problem
            self._problem_changed(problem)


def _settle(load: _Load | None, outcome: TokenIndex | TokenUnavailable) -> None:
    if load is None or load.index.done():
        return
    if isinstance(outcome, TokenIndex):
        load.index.set_result(outcome)
    else:
        load.index.set_exception(outcome)
