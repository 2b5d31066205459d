"""The ports ``KeyRing`` and ``KeyReloader``: all keys of all backends, each finished and watched.

* Every key of a backend is wrapped (``finished_key``): its signature has to arrive within the deadline, and passes the
  one finisher. Nothing hands out a backend's key as it is.
* Reading takes no lock: the ring's contents are one immutable object, and a load puts another in its place. It is put
  together on a thread, so that nobody waits while a hundred thousand keys are counted.
* An owner has one key. Two are an error, unless the settings say that the first wins: the first URI in the settings,
  and within a backend its own order.
* The first load fails as a whole where a backend cannot start, or an owner has two keys. A reload never takes away what
  works: a backend that fails keeps the keys that it has given, and the report says so. A single key that cannot be
  loaded any more is gone, for its backend says so.
* Reloads are done one after another, and those that ask meanwhile share the next: it begins after they asked, so it
  sees what they have seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from signer.adapters.keys.backend import (
    BackendKey,
    KeyBackend,
    KeyBackendError,
    LoadedKeys,
    OwnerHeldTwice,
    Progress,
)
from signer.adapters.keys.verified_key import FinishedKey, self_test
from signer.application.ports import KeyReloadReport, KeyRingStatus, SigningKey
from signer.domain.ethereum import checksum_address

OPERATION_TIMEOUT: Final = timedelta(seconds=5)
"""The default deadline of one signature."""


class Duplicates(StrEnum):
    """What two keys of one owner are: an error, or the first of them is the owner's."""

    ERROR = "error"
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the ring holds at one time.

    Attributes:
        by_address: the keys, ordered by address.
        failed: what could not be loaded, and why.
    """

    by_address: Mapping[str, FinishedKey] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


class LoadedKeyRing:
    """The port ``KeyRing`` over any number of backends."""

    def __init__(
        self,
        backends: Sequence[KeyBackend],
        *,
        operation_timeout: timedelta = OPERATION_TIMEOUT,
        duplicates: Duplicates = Duplicates.ERROR,
        expected_owners: Collection[str] = (),
        self_test: bool = True,
        problems: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Take the backends; ``load`` is what reads them, and ``close`` closes them.

        Args:
            backends: in the order of the settings.
            operation_timeout: the deadline of one signature.
            duplicates: what to do where an owner has two keys.
            expected_owners: addresses, in any case, that have to be there for the ring to be ready.
            self_test: whether each key has to sign ``self_test_message()`` before it is taken; one signature each.
            problems: URIs of the backends that have stopped working since they were loaded, and why: looked at whenever
                ``status`` is asked for.
        """
        self._backends = tuple(backends)
        self._timeout = operation_timeout.total_seconds()
        self._duplicates = duplicates
        self._expected = frozenset(checksum_address(address) for address in expected_owners)
        self._self_test = self_test
        self._problems = problems
        self._loaded: Sequence[LoadedKeys] = [LoadedKeys(()) for _ in self._backends]
        self._contents = _Contents()
        self._is_loading = True
        self._one_at_a_time = asyncio.Lock()
        self._next_reload: asyncio.Task[KeyReloadReport] | None = None
        self._reloads: set[asyncio.Task[KeyReloadReport]] = set()

    # --- The port -----------------------------------------------------------------------------------------------------

    def find(self, address: str) -> SigningKey | None:
        """See ``KeyRing.find``."""
        return self._contents.by_address.get(address)

    def keys(self) -> Sequence[SigningKey]:
        """See ``KeyRing.keys``."""
        return tuple(self._contents.by_address.values())

    def status(self) -> KeyRingStatus:
        """See ``KeyRing.status``. While the first load is under way nobody is missing yet."""
        contents = self._contents
        return KeyRingStatus(
            loaded=len(contents.by_address),
            loading=self._is_loading,
            missing=() if self._is_loading else tuple(sorted(self._expected - contents.by_address.keys())),
            failed={**contents.failed, **self._problems} if self._problems else contents.failed,
        )

    # --- Loading ------------------------------------------------------------------------------------------------------

    async def load(self, progress: Progress | None = None) -> None:
        """Load every backend for the first time.

        Args:
            progress: called with how many keys have been dealt with, and how many there are as far as is known.

        Raises:
            KeyBackendError: a backend cannot start, or an owner has two keys; the ring stays empty, and not ready.
        """
        async with self._one_at_a_time:
            try:
                loaded, errors = await self._load_backends(progress)
                if errors:
                    self._contents = _Contents(failed={uri: str(error) for uri, error in errors.items()})
                    raise _as_one(list(errors.values()))
                self._contents = await self._compose(loaded)
                self._loaded = loaded
            finally:
                self._is_loading = False

    async def reload(self) -> KeyReloadReport:
        """Look at every backend again and swap the ring; see the module for who shares a reload with whom."""
        if self._next_reload is None:
            self._next_reload = asyncio.create_task(self._reload_in_turn())
            self._reloads.add(self._next_reload)
            self._next_reload.add_done_callback(self._reloads.discard)
        return await asyncio.shield(self._next_reload)

    async def close(self) -> None:
        """Stop reloads that are under way, empty the ring and close the backends, each whatever the others do."""
        for reload in self._reloads:
            reload.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        self._contents = _Contents()
        self._loaded = [LoadedKeys(()) for _ in self._backends]
        async with AsyncExitStack() as stack:
            for backend in self._backends:
                stack.push_async_callback(backend.close)

    async def _reload_in_turn(self) -> KeyReloadReport:
        async with self._one_at_a_time:
            self._next_reload = None  # whoever asks from here on may know more than we are about to read
            return await self._reload()

    async def _reload(self) -> KeyReloadReport:
        old = self._contents
        loaded, errors = await self._load_backends(None)
        failed = {uri: str(error) for uri, error in errors.items()}
        try:
            new = await self._compose(loaded)
        except OwnerHeldTwice as error:
            failed[error.uri] = str(error)
            new = old
        else:
            self._contents, self._loaded = new, loaded
        return await asyncio.to_thread(_report_of, old, new, failed)

    async def _load_backends(
        self,
        progress: Progress | None,
    ) -> tuple[Sequence[LoadedKeys], Mapping[str, KeyBackendError]]:
        """Load all backends at once; one that fails has its error beside the keys that it has given before."""
        errors: dict[str, KeyBackendError] = {}
        counts = [(0, 0)] * len(self._backends)

        async def load(index: int, backend: KeyBackend) -> LoadedKeys:
            def tell(done: int, total: int) -> None:
                counts[index] = (done, total)
                if progress is not None:
                    progress(sum(each[0] for each in counts), sum(each[1] for each in counts))

            try:
                return await backend.load(tell)
            except KeyBackendError as error:
                errors[backend.uri] = error
            except Exception as exc:  # noqa: BLE001 - a vendor's error that its backend has let through
                errors[backend.uri] = _unexpected(backend, exc)
            return self._loaded[index]

        loaded = await asyncio.gather(*(load(index, backend) for index, backend in enumerate(self._backends)))
        return loaded, errors

    async def _compose(self, loaded: Sequence[LoadedKeys]) -> _Contents:
        """Make the ring's contents.

        Raises:
            OwnerHeldTwice: an owner has two keys, and that is an error.
        """
        keys, unproven = await asyncio.to_thread(self._finished, loaded)
        refused = await self_test(unproven) if self._self_test else {}
        failed = {uri: reason for each in loaded for uri, reason in each.failures.items()}
        failed.update({key.uri: reason for key, reason in refused.items()})
        return await asyncio.to_thread(_contents_of, keys, refused, failed)

    def _finished(self, loaded: Sequence[LoadedKeys]) -> tuple[Sequence[FinishedKey], Sequence[FinishedKey]]:
        """Finish each owner's key, ordered by address; on a thread, for there may be a hundred thousand.

        Returns:
            All of them, and those that have to prove themselves: one that is in the ring already has.

        Raises:
            OwnerHeldTwice: see ``_compose``.
        """
        taken: dict[str, BackendKey] = {}
        for each in loaded:
            for key in each.keys:
                first = taken.setdefault(key.address, key)
                if first is not key and self._duplicates is Duplicates.ERROR:
                    raise OwnerHeldTwice(key.address, first.uri, key.uri)
        known = self._contents.by_address
        keys: list[FinishedKey] = []
        unproven: list[FinishedKey] = []
        for address in sorted(taken):
            finished = known.get(address)
            if finished is None or not finished.finishes(taken[address]):
                finished = FinishedKey(taken[address], self._timeout)
                unproven.append(finished)
            keys.append(finished)
        return keys, unproven


def _contents_of(keys: Sequence[FinishedKey], refused: Collection[FinishedKey], failed: Mapping[str, str]) -> _Contents:
    return _Contents({key.address: key for key in keys if key not in refused}, failed)


def _report_of(old: _Contents, new: _Contents, failed: Mapping[str, str]) -> KeyReloadReport:
    before, after = old.by_address.keys(), new.by_address.keys()
    return KeyReloadReport(
        added=tuple(sorted(after - before)),
        removed=tuple(sorted(before - after)),
        unchanged=tuple(sorted(before & after)),
        failed={**new.failed, **failed},
    )


def _unexpected(backend: KeyBackend, exc: Exception) -> KeyBackendError:
    error = KeyBackendError(f"the key backend {backend.uri} cannot be used ({type(exc).__name__})")
    error.__cause__ = exc
    return error


def _as_one(errors: Sequence[KeyBackendError]) -> KeyBackendError:
    return errors[0] if len(errors) == 1 else KeyBackendError("; ".join(str(error) for error in errors))
