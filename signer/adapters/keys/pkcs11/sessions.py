"""The sessions that sign: a few threads, each with its own session.

* A session is used by one thread only. The event loop waits for no thread.
* A session that was idle is checked before it signs. After any error it is closed; after an error of the session itself
  a new session tries once more.
* A signature whose caller is gone is not made.
* A thread that is inside one call for longer than the timeout hangs. Its caller and those in the queue get an error at
  once. As soon as the token works again another thread replaces it, and the hung thread ends when its call returns.
  There are never more than twice as many threads as sessions.
* The threads are daemons: one that hangs does not keep the process from ending.
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

from signer.adapters.keys.pkcs11.connection import TokenConnection
from signer.adapters.keys.pkcs11.cryptoki.constants import SESSION_ERRORS, Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import CryptokiError, seconds_in_call

_CHECK_AFTER_IDLE_SECONDS: Final = 1.0
_CHECKS_PER_TIMEOUT: Final = 4
_CLOSE_TIMEOUT: Final = 2.0
_CLOSED_SESSION_ERRORS: Final = frozenset(
    {Ckr.SESSION_CLOSED, Ckr.SESSION_HANDLE_INVALID, Ckr.CRYPTOKI_NOT_INITIALIZED},
)


class NoSession(Exception):
    """There is no session to sign with: a call into the library does not return, or the pool is closed."""


@dataclass(slots=True, eq=False)
class _Job:
    """A signature to make."""

    connection: TokenConnection
    key: int
    digest: bytes
    signature: asyncio.Future[bytes]

    def finish(self, outcome: bytes | Exception | None) -> None:
        """Set the signature or the error; ``None`` cancels."""
        if self.signature.done():
            return
        match outcome:
            case bytes():
                self.signature.set_result(outcome)
            case Exception():
                self.signature.set_exception(outcome)
            case None:
                self.signature.cancel()


class _SigningThread(threading.Thread):
    """A thread with at most one open session.

    Attributes:
        job: the present job, for the event loop to read.
        hangs: whether the present call hangs.
        is_replaced: whether another thread works instead; this one ends when its call returns.
    """

    def __init__(self, pool: SessionPool, signature_bytes: int) -> None:
        super().__init__(name="pkcs11-sign", daemon=True)
        self.job: _Job | None = None
        self.hangs = False
        self.is_replaced = False
        self._lock = threading.Lock()
        self._pool = pool
        self._signature_bytes = signature_bytes
        self._session: int | None = None
        self._connection: TokenConnection | None = None
        self._used_at = 0.0

    def run(self) -> None:
        """Make signatures until the pool closes or replaces this thread."""
        with suppress(RuntimeError):  # the event loop is closed
            while not self.is_replaced and (job := self._pool.jobs.get()) is not None:
                self.job = job
                outcome = self._sign(job)
                with self._lock:
                    self.job = None
                self._pool.hand_over(self, job, outcome)
        self._close_session()
        with suppress(RuntimeError):
            self._pool.remove(self)

    def end_after_call(self) -> bool:
        """Let the thread end when its call returns; return ``False`` if it has returned already."""
        with self._lock:
            self.is_replaced = self.job is not None
        return self.is_replaced

    def _sign(self, job: _Job) -> bytes | Exception | None:
        """Return the signature or the error; ``None`` if the caller is gone."""
        if job.signature.done():
            return None
        connection = job.connection
        may_retry = True
        while True:
            try:
                session = self._session_for(connection)
                signature = connection.cryptoki.sign(session, job.key, job.digest, self._signature_bytes)
            except CryptokiError as error:
                self._close_session(error)
                if not may_retry or error.code not in SESSION_ERRORS:
                    return error
                may_retry = False
            except Exception as exc:  # noqa: BLE001 - raised only by a bug: the caller gets it, the thread goes on
                return exc
            else:
                self._used_at = time.monotonic()
                return signature

    def _session_for(self, connection: TokenConnection) -> int:
        if self._connection is not None and not self._connection.shares_sessions_with(connection):
            self._close_session()
        self._connection = connection
        if self._session is None:
            self._session = connection.cryptoki.open_session(connection.slot)
        elif time.monotonic() - self._used_at > _CHECK_AFTER_IDLE_SECONDS:
            connection.check_session(self._session)
        return self._session

    def _close_session(self, error: CryptokiError | None = None) -> None:
        """Close the session, unless ``error`` says that it is closed: its handle may be another session's by now."""
        session, self._session = self._session, None
        is_closed = error is not None and error.code in _CLOSED_SESSION_ERRORS
        if session is not None and self._connection is not None and not is_closed:
            with suppress(CryptokiError):
                self._connection.cryptoki.close_session(session)


class SessionPool:
    """Signs with several sessions at once.

    Attributes:
        jobs: the signatures to make; ``None`` ends a thread.
    """

    def __init__(self, size: int, signature_bytes: int, call_timeout: float, on_hang: Callable[[], None]) -> None:
        """Create the pool. It calls ``on_hang`` on the event loop when a call takes longer than ``call_timeout``."""
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._size = size
        self._signature_bytes = signature_bytes
        self._call_timeout = call_timeout
        self._on_hang = on_hang
        self._done: deque[tuple[_SigningThread, _Job, bytes | Exception | None]] = deque()
        self._finish_is_scheduled = False
        self._unfinished = 0
        self._hang_check: asyncio.TimerHandle | None = None
        self._all_ended = asyncio.Event()
        self._threads: list[_SigningThread] = []

    def start(self) -> None:
        """Start the threads, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        for _ in range(self._size):
            self._start_thread()

    def sign(self, connection: TokenConnection, key: int, digest: bytes) -> asyncio.Future[bytes]:
        """Sign a digest, and return ``r ‖ s``. Cancelling the future removes the job.

        Raises:
            CryptokiError: a call failed.
            NoSession: a call does not return, or the pool is closed.
        """
        job = _Job(connection, key, digest, self._loop.create_future())
        self._unfinished += 1
        if self._hang_check is None:
            self._schedule_hang_check()
        self.jobs.put(job)
        return job.signature

    def replace_hung_threads(self) -> bool:
        """Replace threads that hang, within the limit; return whether there is a thread that does not hang."""
        for thread in [thread for thread in self._threads if thread.hangs and not thread.is_replaced]:
            if len(self._threads) < 2 * self._size and thread.end_after_call():
                self._start_thread()
            elif thread.job is None:  # its call has returned, and its job is about to be finished
                thread.hangs = False
        return not all(thread.hangs for thread in self._threads)

    async def close(self) -> None:
        """End the threads, each after its present job, and wait a short time for them."""
        self._fail_waiting_jobs()
        for _ in self._threads:
            self.jobs.put(None)
        if self._hang_check is not None:
            self._hang_check.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._all_ended.wait()

    # --- Called by the threads ----------------------------------------------------------------------------------------

    def hand_over(self, thread: _SigningThread, job: _Job, outcome: bytes | Exception | None) -> None:
        """Finish a job on the event loop, together with others that finish at about the same time."""
        self._done.append((thread, job, outcome))
        if not self._finish_is_scheduled:
            self._finish_is_scheduled = True
            self._loop.call_soon_threadsafe(self._finish_done)

    def remove(self, thread: _SigningThread) -> None:
        """Forget a thread that ends."""
        self._loop.call_soon_threadsafe(self._remove, thread)

    # --- On the event loop --------------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        thread = _SigningThread(self, self._signature_bytes)
        self._threads.append(thread)
        thread.start()

    def _finish_done(self) -> None:
        self._finish_is_scheduled = False
        while self._done:
            thread, job, outcome = self._done.popleft()
            self._unfinished -= 1
            job.finish(outcome)
            thread.hangs = False

    def _remove(self, thread: _SigningThread) -> None:
        self._threads.remove(thread)
        if not self._threads:
            self._all_ended.set()

    def _schedule_hang_check(self) -> None:
        self._hang_check = self._loop.call_later(self._call_timeout / _CHECKS_PER_TIMEOUT, self._check_for_hangs)

    def _check_for_hangs(self) -> None:
        self._hang_check = None
        if self._unfinished:
            self._schedule_hang_check()
        hung = [
            thread
            for thread in self._threads
            if not thread.hangs and seconds_in_call(thread.ident) > self._call_timeout
        ]
        for thread in hung:
            thread.hangs = True
            job = thread.job
            if job is not None:
                job.finish(NoSession())
        if hung:
            self._fail_waiting_jobs()
            self._on_hang()

    def _fail_waiting_jobs(self) -> None:
        with suppress(Empty):
            while True:
                job = self.jobs.get_nowait()
                if job is None:  # the pool is being closed
                    self.jobs.put(None)
                    return
                self._unfinished -= 1
                job.finish(NoSession())
