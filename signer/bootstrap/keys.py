"""The composition root's room for keys: out of the settings, a ring that is loaded, reloaded, watched and told about.

The service and ``signer keys`` open their keys here, so that what the one sees the other sees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from signer.adapters.keys.backend import BackendResources, HealthChanged, KeyBackend
from signer.adapters.keys.file_watch import FileWatch, files_of
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import Duplicates, LoadedKeyRing
from signer.adapters.keys.secp256k1 import require_coincurve
from signer.application.ports import Clock
from signer.application.reload_keys import ReloadCause, ReloadKeys
from signer.config.sections import KeysSettings
from signer.domain.ethereum import AccountId
from signer.observability import events
from signer.observability.writers import StructlogReloadLog, emit

TOLD_EVERY_SECONDS: Final = 5.0
_MIB: Final = 1 << 20

KeysDone = Callable[[int, int], None]
"""Hears how many keys have been dealt with, and how many there are as far as is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """All keys of a process.

    Attributes:
        ring: the keys.
        reload: looks at them again.
    """

    ring: LoadedKeyRing
    reload: ReloadKeys
    _watch: FileWatch | None

    async def load(self, progress: KeysDone = lambda _done, _total: None) -> None:
        """Load the keys for the first time, telling of it in the log every few seconds, however long a backend takes.

        Raises:
            KeyBackendError: a backend cannot start, or an owner has two keys.
        """
        started = time.perf_counter()
        so_far = (0, 0)

        def tell(done: int, total: int) -> None:
            nonlocal so_far
            so_far = done, total
            progress(done, total)

        async def tell_the_log() -> None:
            while True:
                await asyncio.sleep(TOLD_EVERY_SECONDS)
                emit(events.KEYS_LOADING, loaded=so_far[0], expected=so_far[1])

        telling = asyncio.create_task(tell_the_log())
        try:
            if self._watch is not None:
                await self._watch.look()
            await self.ring.load(tell)
        finally:
            telling.cancel()
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
        """Reload when the files behind the keys have changed, until cancelled; return at once where that is off."""
        if self._watch is not None:
            await self._watch.run()


class _Health:
    """Which backends have stopped working, told on as they say it, until they are closed: then they may say so."""

    def __init__(self, told: HealthChanged) -> None:
        self.problems: dict[str, str] = {}
        self._told = told
        self._is_over = False

    def changed(self, uri: str, problem: str | None) -> None:
        """Be told by a backend."""
        if self._is_over:
            return
        if problem is not None:
            self.problems[uri] = problem
        elif self.problems.pop(uri, None) is None:
            return  # it was not down
        self._told(uri, problem)

    def end(self) -> None:
        """Hear no more."""
        self._is_over = True


def tell_of_backend(uri: str, problem: str | None) -> None:
    """Write down that a backend stopped working, or works again."""
    if problem is None:
        emit(events.KEY_BACKEND_UP, key_uri=uri)
    else:
        emit(events.KEY_BACKEND_DOWN, key_uri=uri, reason=problem)


@asynccontextmanager
async def open_keys(
    settings: KeysSettings,
    clock: Clock,
    health_changed: HealthChanged = tell_of_backend,
    make_backend: Callable[[str, BackendResources], KeyBackend] = backend_for,
) -> AsyncIterator[Keys]:
    """Compose the backends that the settings name. Nothing is loaded yet.

    Args:
        settings: which, and how.
        clock: dates reloads.
        health_changed: told when a backend that was loaded stops working, and when it works again.
        make_backend: makes a backend out of its key URI.

    Raises:
        KeyBackendError: a key URI cannot be used, or what it needs is not installed.
    """
    require_coincurve()
    async with AsyncExitStack() as stack:
        health = _Health(health_changed)
        pool = OpeningPool(memory_budget=settings.open_memory * _MIB, threads=settings.open_threads or None)
        stack.callback(pool.close)
        resources = BackendResources(opening=pool, health_changed=health.changed)
        ring = LoadedKeyRing(
            [make_backend(uri, resources) for uri in settings.uris],
            operation_timeout=settings.sign_timeout,
            duplicates=Duplicates.FIRST if settings.duplicates == "first" else Duplicates.ERROR,
            expected_owners=_addresses(settings.expected_owners),
            self_test=settings.self_test,
            problems=health.problems,
        )
        stack.push_async_callback(ring.close)
        reload = ReloadKeys(ring, clock, StructlogReloadLog())
        stack.push_async_callback(reload.close)
        stack.callback(health.end)

        def files_changed() -> None:
            reload.begin(ReloadCause.FILES)

        every = settings.watch_every.total_seconds()
        watch = FileWatch(files_of(settings.uris), every, files_changed) if every else None
        yield Keys(ring=ring, reload=reload, _watch=watch)


def _addresses(owners: Iterable[str]) -> list[str]:
    return [AccountId.parse(owner).address for owner in owners]
