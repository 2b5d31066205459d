"""The ports ``KeyRing`` and ``KeyReloader``: the verified keys of all backends.

* The ring returns ``VerifiedKey`` objects only, never a backend's key.
* Reading takes no lock: the contents are one immutable object, which a load replaces. They are assembled on a thread,
  because counting a hundred thousand keys takes time.
* An owner has one key. Two are an error unless ``duplicates`` is ``first``: then the first URI of the settings wins,
  and within a backend the backend's order.
* The first load fails as a whole if a backend cannot start, or an owner has two keys.
* A reload keeps what works: a backend that fails keeps its loaded keys, and the report says so. A single key that its
  backend cannot load any more is removed.
* Loads run one after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from signer.adapters.keys.backend import (
    BackendKey,
    DuplicateOwner,
    KeyBackend,
    KeyBackendError,
    LoadedKeys,
    Progress,
)
from signer.adapters.keys.settings import KeysSettings
from signer.adapters.keys.verified_key import VerifiedKey, self_test
from signer.application.ports import KeyReloadReport, KeyRingStatus, SigningKey
from signer.domain.ethereum import AccountId

_DEFAULTS: Final = KeysSettings()


@dataclass(frozen=True, slots=True)
class _Contents:
    """The ring's contents.

    Attributes:
        by_address: the keys, ordered by address.
        failed: the reason for each key or backend that could not be loaded, by URI.
    """

    by_address: Mapping[str, VerifiedKey] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


class LoadedKeyRing:
    """The port ``KeyRing`` over any number of backends."""

    def __init__(
        self,
        backends: Sequence[KeyBackend],
        settings: KeysSettings = _DEFAULTS,
        *,
        problems: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Create an empty ring; ``load`` fills it, and ``close`` closes the backends.

        Args:
            backends: in the order of the settings.
            settings: the section ``[keys]``.
            problems: the reason for each loaded backend that has failed since, by URI. Read by ``status``.
        """
        self._backends = tuple(backends)
        self._settings = settings
        self._expected = frozenset(AccountId.parse(owner).address for owner in settings.expected_owners)
        self._problems = problems
        self._loaded: Sequence[LoadedKeys] = [LoadedKeys(()) for _ in self._backends]
        self._contents = _Contents()
        self._is_loading = True
        self._load_lock = asyncio.Lock()

    # --- The port -----------------------------------------------------------------------------------------------------

    def find(self, address: str) -> SigningKey | None:
        """See ``KeyRing.find``."""
        return self._contents.by_address.get(address)

    def keys(self) -> Sequence[SigningKey]:
        """See ``KeyRing.keys``."""
        return tuple(self._contents.by_address.values())

    def status(self) -> KeyRingStatus:
        """See ``KeyRing.status``. No owner counts as missing during the first load."""
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
            progress: receives the sum over all backends.

        Raises:
            KeyBackendError: a backend cannot start, or an owner has two keys. The ring stays empty.
        """
        async with self._load_lock:
            try:
                loaded, errors = await self._load_backends(progress)
                if errors:
                    self._contents = _Contents(failed={uri: str(error) for uri, error in errors.items()})
                    raise _combined(list(errors.values()))
                self._contents = await self._compose(loaded)
                self._loaded = loaded
            finally:
                self._is_loading = False

    async def reload(self) -> KeyReloadReport:
        """See ``KeyReloader.reload``."""
        async with self._load_lock:
            old = self._contents
            loaded, errors = await self._load_backends(None)
            failed = {uri: str(error) for uri, error in errors.items()}
            try:
                new = await self._compose(loaded)
            except DuplicateOwner as error:
                failed[error.uri] = str(error)
                new = old
            else:
                self._contents, self._loaded = new, loaded
            return await asyncio.to_thread(_report, old, new, failed)

    async def close(self) -> None:
        """Empty the ring and close every backend, even if one of them fails to close."""
        self._contents = _Contents()
        self._loaded = [LoadedKeys(()) for _ in self._backends]
        async with AsyncExitStack() as stack:
            for backend in self._backends:
                stack.push_async_callback(backend.close)

    async def _load_backends(
        self,
        progress: Progress | None,
    ) -> tuple[Sequence[LoadedKeys], Mapping[str, KeyBackendError]]:
        """Load all backends at once; a backend that fails keeps the keys that it loaded before."""
        errors: dict[str, KeyBackendError] = {}
        counts = [(0, 0)] * len(self._backends)

        async def load(index: int, backend: KeyBackend) -> LoadedKeys:
            def report(done: int, total: int) -> None:
                counts[index] = (done, total)
                if progress is not None:
                    progress(sum(each[0] for each in counts), sum(each[1] for each in counts))

            try:
                return await backend.load(report)
            except KeyBackendError as error:
                errors[backend.uri] = error
            except Exception as exc:  # noqa: BLE001 - a vendor's error that the backend did not convert
                errors[backend.uri] = _unexpected(backend, exc)
            return self._loaded[index]

        loaded = await asyncio.gather(*(load(index, backend) for index, backend in enumerate(self._backends)))
        return loaded, errors

    async def _compose(self, loaded: Sequence[LoadedKeys]) -> _Contents:
        """Return the contents of the ring, after the self-test of the new keys.

        Raises:
            DuplicateOwner: an owner has two keys, and ``duplicates`` is ``refuse``.
        """
        keys, untested = await asyncio.to_thread(self._verified, loaded)
        refused = await self_test(untested) if self._settings.self_test else {}
        failed = {uri: reason for each in loaded for uri, reason in each.failures.items()}
        failed.update({key.uri: reason for key, reason in refused.items()})
        return await asyncio.to_thread(_contents_without, refused, keys, failed)

    def _verified(self, loaded: Sequence[LoadedKeys]) -> tuple[Sequence[VerifiedKey], Sequence[VerifiedKey]]:
        """Return one key for each owner, ordered by address, and those of them that are new; blocking.

        Raises:
            DuplicateOwner: see ``_compose``.
        """
        first_keys: dict[str, BackendKey] = {}
        for each in loaded:
            for key in each.keys:
                first = first_keys.setdefault(key.address, key)
                if first is not key and self._settings.duplicates == "refuse":
                    raise DuplicateOwner(key.address, first.uri, key.uri)
        known = self._contents.by_address
        timeout = self._settings.sign_timeout.total_seconds()
        keys: list[VerifiedKey] = []
        new: list[VerifiedKey] = []
        for address in sorted(first_keys):
            verified = known.get(address)
            if verified is None or not verified.wraps(first_keys[address]):
                verified = VerifiedKey(first_keys[address], timeout)
                new.append(verified)
            keys.append(verified)
        return keys, new


def _contents_without(
    refused: Collection[VerifiedKey], keys: Sequence[VerifiedKey], failed: Mapping[str, str]
) -> _Contents:
    return _Contents({key.address: key for key in keys if key not in refused}, failed)


def _report(old: _Contents, new: _Contents, failed: Mapping[str, str]) -> KeyReloadReport:
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


def _combined(errors: Sequence[KeyBackendError]) -> KeyBackendError:
    return errors[0] if len(errors) == 1 else KeyBackendError("; ".join(str(error) for error in errors))
