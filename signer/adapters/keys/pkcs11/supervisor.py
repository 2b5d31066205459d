"""Keeps one token connected.

::

                 connected                        the token has failed
      (start) ───────────────▶ up ──────────────────────────────────────▶ mending
         │                     ▲ │                                        │    │
         │                     │ │ a call hangs                 connected │    │ that failed
         │ that failed         │ ▼                                   ▲    │    │
         └──────────────────▶ down ◀───────────────────────────────── │ ───┼────┘
                               ▲ │  connected again and again, more   └────┘
                               └─┘  and more seldom, until it works

* While it is being mended for the first time, whoever needs it waits. While it is down, they are refused at once, with
  the time of the next attempt.
* All connecting is done here, one attempt at a time, never twice within the cooldown. After a refused PIN nothing is
  tried before ``load`` is called.
* A token that is idle is looked at now and then, so that its loss is known before somebody needs it. It has to sign:
  whether a session is alive and logged in, some libraries tell without asking the token.
* All state is the event loop's. What blocks runs on the control thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from signer.adapters.keys.pkcs11.connection import Connection, Connector
from signer.adapters.keys.pkcs11.control import ControlThread
from signer.adapters.keys.pkcs11.cryptoki.library import CryptokiError, LibraryBusy
from signer.adapters.keys.pkcs11.cryptoki.structures import LibraryUnusable
from signer.adapters.keys.pkcs11.index import KeysDone, TokenIndex
from signer.adapters.keys.pkcs11.login import PinRefused, TokenError
from signer.adapters.keys.pkcs11.sessions import SessionPool

HealthChanged = Callable[[str | None], None]
"""Called on the event loop with what is wrong, and with ``None`` once nothing is."""
Progress = Callable[[int, int], None]
"""Called on the event loop with how many keys have been read, and how many there are."""

COOLDOWN_SECONDS: Final = 1.0
_LONGEST_DELAY_SECONDS: Final = 15.0
_LOOKS_EVERY_SECONDS: Final = 10.0
_PATIENCE_TO_CONNECT: Final = 10  # times that of a signature: some libraries take seconds to initialise
_CLOSES_WITHIN_SECONDS: Final = 2.0
_AFTER_A_PERSON_SECONDS: Final = 30.0


class TokenUnavailable(Exception):
    """The token, or the key in it, does not sign now.

    The text is for the operator. It holds no secret.

    Attributes:
        brief: the text for a caller, whom paths and serial numbers do not concern.
        retry_after: seconds after which it makes sense to ask again.
    """

    def __init__(self, reason: str, brief: str, retry_after: float = _AFTER_A_PERSON_SECONDS) -> None:
        super().__init__(reason)
        self.brief = brief
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class _Asked:
    """Somebody who wants the keys."""

    index: asyncio.Future[TokenIndex]
    progress: Progress


class Supervisor:
    """The state of one token.

    Attributes:
        connection: to sign with, where it is up.
        connected_at: since when (monotonic seconds).
        problem: why it is down; ``None`` where it is not.
    """

    def __init__(
        self,
        connector: Connector,
        pool: SessionPool,
        patience: float,
        health_changed: HealthChanged,
    ) -> None:
        """Begin; nothing is connected before ``load``.

        Args:
            connector: the control thread's.
            pool: the sessions that sign.
            patience: seconds after which a call that signs hangs.
            health_changed: told of ``problem``.
        """
        self.connection: Connection | None = None
        self.connected_at = 0.0
        self.problem: str | None = None
        self._brief = ""
        self._connector = connector
        self._pool = pool
        self._patience = patience
        self._health_changed = health_changed
        self._next_attempt_at = 0.0
        self._delay = 0.0
        self._waits_for_a_person = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._asked: list[_Asked] = []
        self._in_turn: list[_Asked] = []
        self._control = ControlThread()
        pool.hung = self.hangs
        self._task = asyncio.create_task(self._supervise())

    # --- For those who need the token ---------------------------------------------------------------------------------

    async def load(self, progress: Progress) -> TokenIndex:
        """Connect, or connect anew, and give the keys.

        Raises:
            TokenUnavailable: it cannot be done.
        """
        asked = _Asked(asyncio.get_running_loop().create_future(), progress)
        self._asked.append(asked)
        self._wake.set()
        return await asked.index

    async def mended(self) -> Connection:
        """Wait for the attempt to connect that is due or under way, unless one has failed already.

        Raises:
            TokenUnavailable: the token is down.
        """
        if self.problem is None:
            try:
                async with asyncio.timeout(self._patience):
                    await self._settled.wait()
            except TimeoutError:
                if self.connection is None and self.problem is None:  # the attempt goes on, and nobody waits any more
                    self._problem_is("it is being connected to, and that takes long", "it is being connected to")
        if self.connection is None:
            raise self.unavailable()
        return self.connection

    async def look_at(self, connection: Connection, check: Callable[[Connection], None]) -> None:
        """Have the keeper of a connection checked; where it fails, the token has."""
        checked = self._control.submit(partial(check, connection))
        if not await self._control.comes_back(checked, self._patience):
            self.hangs()
        elif checked.exception() is not None:
            self.has_failed(connection)

    def has_failed(self, connection: Connection) -> None:
        """Have the token mended, after the cooldown; whoever needs it waits."""
        if connection is self.connection:
            self.connection = None
            self._next_attempt_at = self.connected_at + COOLDOWN_SECONDS
            self._settled.clear()
            self._wake.set()

    def hangs(self) -> None:
        """Refuse everybody until the token has been seen to work again."""
        self._is_down("a call into the token's library does not come back", "it does not answer")
        self._next_attempt_at = time.monotonic()
        self._wake.set()

    def unavailable(self) -> TokenUnavailable:
        """Say that the token is down, and until when at least."""
        if self._waits_for_a_person:
            return TokenUnavailable(self.problem or "", self._brief)
        retry_after = max(COOLDOWN_SECONDS, self._next_attempt_at - time.monotonic())
        return TokenUnavailable(self.problem or "it is being connected to", self._brief, retry_after)

    async def stop(self) -> None:
        """Connect no more; whoever waits is told so."""
        self._task.cancel()
        await asyncio.wait({self._task})
        self._waits_for_a_person = True
        self.connection, self.problem, self._brief = None, "the token has been closed", "it has been closed"
        self._settled.set()
        self._in_turn += self._asked
        self._answer(self.unavailable())

    async def close(self) -> None:
        """Close the connection and let go of the library, unless a call hangs."""
        closed = self._control.submit(self._connector.close)
        self._control.close()
        await asyncio.wait({closed}, timeout=_CLOSES_WITHIN_SECONDS)

    # --- Supervising --------------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while True:
            was_woken = await self._rest()
            if self._asked or self._is_time_to_connect():
                await self._connect()
            elif self.connection is not None and not was_woken:
                await self.look_at(self.connection, self._connector.check_signing)

    async def _rest(self) -> bool:
        """Wait until there is something to do; tell whether somebody said so."""
        rest: float | None = _LOOKS_EVERY_SECONDS
        if self.connection is None:
            rest = None if self._waits_for_a_person else max(0.0, self._next_attempt_at - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await self._wake.wait()
        was_woken = self._wake.is_set()
        self._wake.clear()
        return was_woken

    def _is_time_to_connect(self) -> bool:
        is_wanted = self.connection is None and not self._waits_for_a_person
        return is_wanted and time.monotonic() >= self._next_attempt_at

    async def _connect(self) -> None:
        """Connect once, however long it takes; who waits for it hears of a hang, of an error or of the keys."""
        self._in_turn, self._asked = self._asked, []
        connecting = self._control.submit(partial(self._connector.connect, self._progress_of(self._in_turn)))
        while not await self._control.comes_back(connecting, _PATIENCE_TO_CONNECT * self._patience):
            self.hangs()
            self._in_turn, self._asked = self._in_turn + self._asked, []
            self._answer(self.unavailable())
        try:
            connection = connecting.result()
        except Exception as exc:  # noqa: BLE001 - the supervisor lives on, whatever it was
            self._waits_for_a_person = isinstance(exc, PinRefused)
            if self.connection is None:
                self._is_down(*_told(exc))
            unavailable = TokenUnavailable(*_told(exc), self.unavailable().retry_after)
            unavailable.__cause__ = exc
            self._answer(unavailable)
        else:
            if self._pool.is_ready():
                self._is_up(connection)
                self._answer(connection.index)
            else:
                self._is_down("every thread hangs in a call into the token's library: start anew", "it does not answer")
                self._answer(self.unavailable())

    def _progress_of(self, asked: Sequence[_Asked]) -> KeysDone:
        loop = asyncio.get_running_loop()

        def keys_done(done: int, total: int) -> None:
            for each in asked:
                loop.call_soon_threadsafe(each.progress, done, total)

        return keys_done

    def _answer(self, outcome: TokenIndex | TokenUnavailable) -> None:
        in_turn, self._in_turn = self._in_turn, []
        for asked in in_turn:
            if asked.index.done():
                continue
            if isinstance(outcome, TokenIndex):
                asked.index.set_result(outcome)
            else:
                asked.index.set_exception(outcome)

    def _is_up(self, connection: Connection) -> None:
        self.connection = connection
        self.connected_at = time.monotonic()
        self._delay = 0.0
        self._waits_for_a_person = False
        self._settled.set()
        self._problem_is(None, "")

    def _is_down(self, problem: str, brief: str) -> None:
        self.connection = None
        self._delay = min(max(COOLDOWN_SECONDS, 2 * self._delay), _LONGEST_DELAY_SECONDS)
        self._next_attempt_at = time.monotonic() + self._delay
        self._settled.set()
        self._problem_is(problem, brief)

    def _problem_is(self, problem: str | None, brief: str) -> None:
        self._brief = brief
        if problem != self.problem:
            self.problem = problem
            self._health_changed(problem)


def _told(exc: Exception) -> tuple[str, str]:
    """Say what is wrong, to the operator and to a caller."""
    if isinstance(exc, TokenError):
        return str(exc), exc.brief
    if isinstance(exc, CryptokiError | LibraryBusy):
        return str(exc), str(exc)
    if isinstance(exc, LibraryUnusable):
        return str(exc), "its library cannot be loaded"
    return f"it cannot be used ({type(exc).__name__})", "it cannot be used"
