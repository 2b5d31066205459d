"""Creates the key ring from the settings, with its reloads, file watch and log lines.

The service and ``signer keys`` both open their keys here, so they see the same keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from signer.adapters.keys.backend import (
    BackendResources,
    HealthChanged,
    KeyBackend,
    KeyBackendError,
    Progress,
    combined,
)
from signer.adapters.keys.file_watch import FileWatch, watched_files
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.secp256k1 import require_coincurve
from signer.adapters.keys.settings import KeysSettings
from signer.adapters.keys.verified_key import Signed
from signer.application.ports import Clock
from signer.application.reload_keys import ReloadCause, ReloadKeys
from signer.observability import events
from signer.observability.writers import StructlogReloadLog, emit

PROGRESS_LOG_INTERVAL: Final = 5.0
"""Seconds between two ``keys.loading`` log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """All keys of a process.

    Attributes:
        ring: the keys.
        reload: loads them again.
    """

    ring: LoadedKeyRing
    reload: ReloadKeys
    _watch: FileWatch | None

    async def load(self, progress: Progress = lambda _done, _total: None) -> None:
        """Load the keys for the first time and log the progress every few seconds.

        Raises:
            KeyBackendError: a backend cannot start, or an owner has two keys.
        """
        started = time.perf_counter()
        latest = (0, 0)

        def report(done: int, total: int) -> None:
            nonlocal latest
            latest = done, total
            progress(done, total)

        async def log_progress() -> None:
            while True:
                await asyncio.sleep(PROGRESS_LOG_INTERVAL)
                emit(events.KEYS_LOADING, loaded=latest[0], expected=latest[1])

        logging = asyncio.create_task(log_progress())
        try:
            if self._watch is not None:
                await self._watch.remember_current_files()
            await self.ring.load(report)
        finally:
            logging.cancel()
        status = self.ring.status()
        for uri, reason in status.failed.items():
            emit(events.KEY_FAILED, key_uri=uri, reason=reason)
        emit(
            events.KEYS_LOADED,
            loaded=status.loaded,
            missing=len(status.missing),
            failed=len(status.failed),
            duration_ms=(time.perf_counter() - started) * 1000,
        )

    async def watch(self) -> None:
        """Reload when key files change, until cancelled; return at once if ``watch_every`` is 0."""
        if self._watch is not None:
            await self._watch.run()


def log_backend_health(uri: str, problem: str | None) -> None:
    """Log that a backend has failed or recovered."""
    if problem is None:
        emit(events.KEY_BACKEND_UP, key_uri=uri)
    else:
        emit(events.KEY_BACKEND_DOWN, key_uri=uri, reason=problem)


@asynccontextmanager
async def open_keys(
    settings: KeysSettings,
    clock: Clock,
    health_changed: HealthChanged = log_backend_health,
    make_backend: Callable[[str, BackendResources], KeyBackend] = backend_for,
    signed: Signed | None = None,
) -> AsyncIterator[Keys]:
    """Create the backends of the settings, and close them at the end. Nothing is loaded yet.

    Raises:
        KeyBackendError: key URIs cannot be used, or their libraries are not installed; the text names them all.
    """
    require_coincurve()
    async with AsyncExitStack() as stack:
        problems: dict[str, str] = {}
        closing = asyncio.Event()

        def changed(uri: str, problem: str | None) -> None:
            if closing.is_set() or (problem is None and uri not in problems):  # stopped, or it was not down
                return
            if problem is None:
                del problems[uri]
            else:
                problems[uri] = problem
            health_changed(uri, problem)

        pool = OpeningPool(memory_budget=settings.open_memory << 20, threads=settings.open_threads)
        stack.callback(pool.close)
        resources = BackendResources(opening=pool, health_changed=changed)
        backends: list[KeyBackend] = []
        errors: list[KeyBackendError] = []
        for uri in settings.uris:
            try:
                backends.append(make_backend(uri, resources))
            except KeyBackendError as error:
                errors.append(error)
        if errors:
            raise combined(errors)
        ring = LoadedKeyRing(backends, settings, problems=problems, signed=signed)
        stack.push_async_callback(ring.close)
        reload = ReloadKeys(ring, clock, StructlogReloadLog())
        stack.push_async_callback(reload.close)
        stack.callback(closing.set)

        def reload_changed_files() -> None:
            reload.begin(ReloadCause.FILES)

        interval = settings.watch_every.total_seconds()
        watch = FileWatch(watched_files(settings.uris), interval, reload_changed_files) if interval else None
        yield Keys(ring=ring, reload=reload, _watch=watch)
