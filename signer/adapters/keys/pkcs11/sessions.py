"""The sessions that sign: a few threads, each with a session of its own.

* A session belongs to one thread, so none is ever shared, and the event loop waits for neither.
* A session that was idle is looked at before it is used; after any error it is thrown away, and where the error was
  the session's own, a new one tries once more.
* Signatures that nobody waits for any more are not made.
* A thread that stays inside of one call for longer than the patience hangs: whoever waits for it, or behind it, is told
  at once. A thread cannot be ended, so as soon as the token works again another takes its place, and it ends when it
  comes back. There are never more than twice as many threads as sessions.
* Threads are daemons: one that hangs does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from signer.adapters.keys.pkcs11.connection import Connection
from signer.adapters.keys.pkcs11.cryptoki.constants import FAULTS_OF_A_SESSION, Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import CryptokiError, seconds_inside

_LOOKED_AT_AFTER_SECONDS: Final = 1.0
_LOOKS_WITHIN_PATIENCE: Final = 4
_ENDS_WITHIN_SECONDS: Final = 2.0
_GONE: Final = frozenset({Ckr.SESSION_CLOSED, Ckr.SESSION_HANDLE_INVALID, Ckr.CRYPTOKI_NOT_INITIALIZED})


class TokenHangs(Exception):
    """A call into the library does not come back."""


@dataclass(slots=True, eq=False)
class _Job:
    """A signature that is wanted."""

    connection: Connection
    key: int
    digest: bytes
    signature: asyncio.Future[bytes]


@dataclass(slots=True)
class _Session:
    """A session of one thread."""

    connection: Connection
    handle: int
    used_at: float


class _Worker:
    """A thread. All of this is the event loop's, but for ``job``."""

    def __init__(self, serve: Callable[[_Worker], None]) -> None:
        self.job: _Job | None = None
        self.hangs = False
        self.is_replaced = False
        self.thread = threading.Thread(target=serve, args=(self,), name="pkcs11-sign", daemon=True)
        self.thread.start()


class SessionPool:
    """Signs with several sessions at once.

    Attributes:
        hung: called on the event loop when a call does not come back.
    """

    def __init__(self, size: int, signature_bytes: int, patience: float) -> None:
        """Start the threads; to be called on the event loop.

        Args:
            size: how many sessions, and threads.
            signature_bytes: how long a signature is.
            patience: seconds after which a call hangs.
        """
        self.hung: Callable[[], None] = lambda: None
        self._size = size
        self._signature_bytes = signature_bytes
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[_Worker, _Job, bytes | Exception | None]] = deque()
        self._delivery_is_due = False
        self._under_way = 0
        self._watch: asyncio.TimerHandle | None = None
        self._all_ended = asyncio.Event()
        self._workers = [_Worker(self._serve) for _ in range(size)]

    def sign(self, connection: Connection, key: int, digest: bytes) -> asyncio.Future[bytes]:
        """Have a digest signed; being cancelled, the future takes its signature off the list.

        Returns:
            ``r ‖ s``, or a ``CryptokiError``, or ``TokenHangs``.
        """
        job = _Job(connection, key, digest, self._loop.create_future())
        self._under_way += 1
        if self._watch is None:
            self._watch_later()
        self._jobs.put(job)
        return job.signature

    def drop_waiting(self) -> None:
        """Tell all whose signature was not begun that the token hangs."""
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is None:  # we are being closed
                    self._jobs.put(None)
                    return
                self._under_way -= 1
                _settle(job, TokenHangs())

    def is_ready(self) -> bool:
        """Replace threads that hang, as far as the bound allows; tell whether there is one now that does not."""
        for worker in [worker for worker in self._workers if worker.hangs and not worker.is_replaced]:
            if len(self._workers) < 2 * self._size:
                worker.is_replaced = True
                self._workers.append(_Worker(self._serve))
        return not all(worker.hangs for worker in self._workers)

    async def close(self) -> None:
        """End the threads, each after what it is doing, and wait a moment for that."""
        self.drop_waiting()
        for _ in self._workers:
            self._jobs.put(None)
        if self._watch is not None:
            self._watch.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN_SECONDS):
                await self._all_ended.wait()

    # --- On the event loop --------------------------------------------------------------------------------------------

    def _watch_later(self) -> None:
        self._watch = self._loop.call_later(self._patience / _LOOKS_WITHIN_PATIENCE, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._under_way:
            self._watch_later()
        hanging = [
            worker
            for worker in self._workers
            if not worker.hangs and seconds_inside(worker.thread.ident) > self._patience
        ]
        for worker in hanging:
            worker.hangs = True
            job = worker.job
            if job is not None:
                _settle(job, TokenHangs())
        if hanging:
            self.drop_waiting()
            self.hung()

    def _deliver(self) -> None:
        self._delivery_is_due = False
        while self._done:
            worker, job, outcome = self._done.popleft()
            self._under_way -= 1
            _settle(job, outcome)
            worker.hangs = False

    def _has_ended(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if not self._workers:
            self._all_ended.set()

    # --- On a thread --------------------------------------------------------------------------------------------------

    def _serve(self, worker: _Worker) -> None:
        session: _Session | None = None
        with suppress(RuntimeError):  # the event loop is closed, and with it all that anybody waits for
            while not worker.is_replaced and (job := self._jobs.get()) is not None:
                worker.job = job
                session, outcome = self._work(session, job)
                worker.job = None
                self._done.append((worker, job, outcome))
                if not self._delivery_is_due:
                    self._delivery_is_due = True
                    self._loop.call_soon_threadsafe(self._deliver)
        _close(session)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._has_ended, worker)

    def _work(self, session: _Session | None, job: _Job) -> tuple[_Session | None, bytes | Exception | None]:
        """Make a signature.

        Returns:
            The session that the thread has now, and the signature or what was wrong; ``None`` if nobody wants it.
        """
        if job.signature.done():
            return session, None
        for may_try_again in (True, False):
            try:
                session = _fitting(session, job.connection)
                session = session or _open(job.connection)
                signature = job.connection.cryptoki.sign(session.handle, job.key, job.digest, self._signature_bytes)
            except CryptokiError as error:
                _close(session, error)
                session = None
                if not (may_try_again and error.code in FAULTS_OF_A_SESSION):
                    return None, error
            except Exception as exc:  # noqa: BLE001 - a defect of ours: whoever waits hears of it, the thread lives on
                return session, exc
            else:
                session.used_at = time.monotonic()
                return session, signature
        return session, None


def _fitting(session: _Session | None, connection: Connection) -> _Session | None:
    """Give the session if it can be used for the connection; else it is closed."""
    if session is None or not session.connection.is_same_place(connection):
        _close(session)
        return None
    session.connection = connection
    if time.monotonic() - session.used_at > _LOOKED_AT_AFTER_SECONDS:
        connection.check_login(session.handle)
    return session


def _open(connection: Connection) -> _Session:
    return _Session(connection, connection.cryptoki.open_session(connection.slot), time.monotonic())


def _close(session: _Session | None, error: CryptokiError | None = None) -> None:
    """Close a session, if it is still there: its number may be another's by now where it is not."""
    if session is not None and (error is None or error.code not in _GONE):
        with suppress(CryptokiError):
            session.connection.cryptoki.close_session(session.handle)


def _settle(job: _Job, outcome: bytes | Exception | None) -> None:
    if job.signature.done():
        return
    match outcome:
        case bytes():
            job.signature.set_result(outcome)
        case Exception():
            job.signature.set_exception(outcome)
        case None:
            job.signature.cancel()
