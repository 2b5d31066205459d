"""Creates the key ring from the settings, with its reloads, file watch and log lines.

The service and ``signer keys`` both open their keys here, so they see the same keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from signer.adapters.keys.backend import (
    BackendResources,
    KeyBackend,
    KeyBackendError,
    Problem,
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
from signer.application.outage import Outage
from signer.application.ports import Clock, KeyFailure
from signer.application.reload_keys import ReloadCause, ReloadKeys
from signer.observability import events
from signer.observability.outage_log import OutageLog
from signer.observability.writers import ReloadLogLines, emit

PROGRESS_LOG_INTERVAL: Final = 5.0
"""Seconds between two ``keys.loading`` log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """All keys of a process.

    Attributes:
        ring: the keys.
        reload: loads them again.
        outages: of the backends that have failed, by URI.
    """

    ring: LoadedKeyRing
    reload: ReloadKeys
    outages: Mapping[str, Outage]
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
            emit(events.KEY_FAILED, key_uri=uri, cause=KeyFailure.cause_of(reason), reason=reason)
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


class _BackendHealth:
    """What the backends report about themselves, and its log lines.

    Attributes:
        problems: the reason for each backend that is down, by URI.
        outages: of the backends that have failed, by URI.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.outages: dict[str, Outage] = {}
        self._is_closed = False

    def outage_of(self, uri: str) -> Outage:
        """Return the outage of a backend."""
        if uri not in self.outages:
            self.outages[uri] = Outage(OutageLog(events.KEY_BACKEND_DOWN, events.KEY_BACKEND_UP, key_uri=uri))
        return self.outages[uri]

    def changed(self, uri: str, problem: Problem | None) -> None:
        """See ``HealthChanged``."""
        if self._is_closed:
            return
        if problem is None:
            self.problems.pop(uri, None)
            self.outage_of(uri).succeeded()
        else:
            self.problems[uri] = KeyFailure(problem.reason, problem.cause)
            self.outage_of(uri).failed(problem.cause, problem.reason, is_certain=True)

    def failing(self) -> Mapping[str, str]:
        """Return the reason for each backend whose calls fail, by URI."""
        return {uri: KeyFailure(outage.reason, outage.cause) for uri, outage in self.outages.items() if outage.is_down}

    def close(self) -> None:
        """Ignore what backends report while they close."""
        self._is_closed = True


@asynccontextmanager
async def open_keys(
    settings: KeysSettings,
    clock: Clock,
    make_backend: Callable[[str, BackendResources], KeyBackend] = backend_for,
    signed: Signed | None = None,
) -> AsyncIterator[Keys]:
    """Create the backends of the settings, and close them at the end. Nothing is loaded yet.

    Raises:
        KeyBackendError: key URIs cannot be used, or their libraries are not installed; the text names them all.
    """
    require_coincurve()
    async with AsyncExitStack() as stack:
        health = _BackendHealth()
        pool = OpeningPool(memory_budget=settings.open_memory << 20, threads=settings.open_threads)
        stack.callback(pool.close)
        resources = BackendResources(opening=pool, health_changed=health.changed, outage_of=health.outage_of)
        backends: list[KeyBackend] = []
        errors: list[KeyBackendError] = []
        for uri in settings.uris:
            try:
                backends.append(make_backend(uri, resources))
            except KeyBackendError as error:
                errors.append(error)
        if errors:
            raise combined(errors)
        ring = LoadedKeyRing(backends, settings, problems=health.problems, failing=health.failing, signed=signed)
        stack.push_async_callback(ring.close)
        reload = ReloadKeys(ring, clock, ReloadLogLines())
        stack.push_async_callback(reload.close)
        stack.callback(health.close)

        def reload_changed_files() -> None:
            reload.begin(ReloadCause.FILES)

        interval = settings.watch_every.total_seconds()
        watch = FileWatch(watched_files(settings.uris), interval, reload_changed_files) if interval else None
        yield Keys(ring=ring, reload=reload, outages=health.outages, _watch=watch)
