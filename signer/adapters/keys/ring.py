"""The ports ``KeyRing`` and ``KeyReloader``: the verified keys of all backends.

* The ring returns ``VerifiedKey`` objects only, never a backend's key.
* Reading takes no lock: the contents are one immutable object, which a load replaces. They are assembled on a thread,
  because counting a hundred thousand keys takes time.
* An owner has one key. Two are an error unless ``duplicates`` is ``first``: then the first URI of the settings wins,
  and within a backend the backend's order.
* The first load fails as a whole if a backend cannot start, or an owner has two keys.
* A reload keeps what works: a loaded key stays until its successor opens, or its backend no longer has it. So a key
  that cannot be opened now, or whose backend fails, goes on signing, and the report says so.
* Loads run one after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Final

from signer.adapters.keys.backend import (
    BackendKey,
    DuplicateOwner,
    KeyBackend,
    KeyBackendError,
    LoadedKeys,
    Progress,
    combined,
)
from signer.adapters.keys.many_keys import FREEZE_EVERY, free_in_steps, freeze, sorted_in_steps
from signer.adapters.keys.settings import KeysSettings
from signer.adapters.keys.verified_key import Signed, VerifiedKey, self_test
from signer.application.ports import KeyFailure, KeyReloadReport, KeyRingStatus, SigningKey
from signer.domain.ethereum import AccountId

_DEFAULTS: Final = KeysSettings()


@dataclass(frozen=True, slots=True)
class _Contents:
    """The ring's contents.

    Attributes:
        by_address: the keys, ordered by address.
        failed: the reason for each key or backend that could not be loaded, by URI.
        loaded: the keys of each backend, with those that were kept.
        kept: the owners whose key was loaded before and could not be loaded again.
    """

    by_address: Mapping[str, VerifiedKey] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    loaded: Sequence[LoadedKeys] = ()
    kept: Collection[str] = ()


class LoadedKeyRing:
    """The port ``KeyRing`` over any number of backends."""

    def __init__(
        self,
        backends: Sequence[KeyBackend],
        settings: KeysSettings = _DEFAULTS,
        *,
        problems: Mapping[str, str] = MappingProxyType({}),
        failing: Callable[[], Mapping[str, str]] = dict,
        signed: Signed | None = None,
    ) -> None:
        """Create an empty ring; ``load`` fills it, and ``close`` closes the backends.

        Args:
            backends: in the order of the settings.
            settings: the section ``[keys]``.
            problems: the reason for each loaded backend that has failed since, by URI. Read by ``status``.
            failing: returns the same for backends whose calls fail now. They do not count as down: only calls show when
                they work again, and a replica that is not ready gets none.
            signed: called after each signature.
        """
        self._backends = tuple(backends)
        self._settings = settings
        self._expected = frozenset(AccountId.parse(owner).address for owner in settings.expected_owners)
        self._problems = problems
        self._failing = failing
        self._signed = signed
        self._named = set(self._expected)
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

    def expects(self, address: str) -> bool:
        """See ``KeyRing.expects``."""
        return address in self._named

    def status(self) -> KeyRingStatus:
        """See ``KeyRing.status``. No owner counts as missing during the first load."""
        contents = self._contents
        failed = {**contents.failed, **self._problems, **self._failing()}
        return KeyRingStatus(
            loaded=len(contents.by_address),
            loading=self._is_loading,
            missing=() if self._is_loading else tuple(sorted(self._expected.difference(contents.by_address))),
            failed=failed,
            is_down=bool(self._problems),
            failed_backends=frozenset(backend.uri for backend in self._backends if backend.uri in failed),
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
                    self._contents = _Contents(failed=_failures_of(loaded))
                    raise combined(list(errors.values()))
                self._contents = await self._compose(loaded, errors)
            finally:
                self._is_loading = False

    async def reload(self) -> KeyReloadReport:
        """See ``KeyReloader.reload``."""
        async with self._load_lock:
            old = self._contents
            loaded, errors = await self._load_backends(None)
            try:
                new = await self._compose(loaded, errors)
            except DuplicateOwner as error:
                new = replace(old, failed={**old.failed, **_failures_of(loaded), error.uri: str(error)})
            self._contents = new
            report = await asyncio.to_thread(_report, old, new)
            replaced = await asyncio.to_thread(_keys_of, old)
            del old
            await asyncio.to_thread(free_in_steps, replaced)
            return report

    async def close(self) -> None:
        """Empty the ring and close every backend, even if one of them fails to close."""
        self._contents = _Contents()
        async with AsyncExitStack() as stack:
            for backend in self._backends:
                stack.push_async_callback(backend.close)

    async def _load_backends(
        self,
        progress: Progress | None,
    ) -> tuple[Sequence[LoadedKeys], Mapping[int, KeyBackendError]]:
        """Load all backends at once; return also the errors of those that failed, by their place."""
        errors: dict[int, KeyBackendError] = {}
        counts = [(0, 0)] * len(self._backends)

        async def load(index: int, backend: KeyBackend) -> LoadedKeys:
            def report(done: int, total: int) -> None:
                counts[index] = (done, total)
                if progress is not None:
                    progress(sum(each[0] for each in counts), sum(each[1] for each in counts))

            try:
                return await backend.load(report)
            except KeyBackendError as error:
                errors[index] = error
            except Exception as exc:  # noqa: BLE001 - a vendor's error that the backend did not convert
                errors[index] = KeyBackendError(f"the key backend {backend.uri} cannot be used ({type(exc).__name__})")
                errors[index].__cause__ = exc
            return LoadedKeys((), {backend.uri: KeyFailure(str(errors[index]), errors[index].cause)})

        loaded = await asyncio.gather(*(load(index, backend) for index, backend in enumerate(self._backends)))
        return loaded, errors

    async def _compose(self, loaded: Sequence[LoadedKeys], errors: Collection[int]) -> _Contents:
        """Return the contents of the ring, after the self-test of the new keys. ``errors``: backends that failed.

        Raises:
            DuplicateOwner: an owner has two keys, and ``duplicates`` is ``refuse``.
        """
        loaded, kept = await asyncio.to_thread(_with_kept, self._contents.loaded, loaded, errors)
        keys, untested = await asyncio.to_thread(self._verified, loaded)
        refused = await self_test(untested) if self._settings.self_test else {}
        return await asyncio.to_thread(self._contents_without, refused, keys, loaded, kept)

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
        for address in sorted_in_steps(first_keys):
            verified = known.get(address)
            if verified is None or not verified.wraps(first_keys[address]):
                verified = VerifiedKey(first_keys[address], timeout, self._signed)
                new.append(verified)
                if not len(new) % FREEZE_EVERY:
                    freeze()
            keys.append(verified)
        return keys, new

    def _contents_without(
        self,
        refused: Mapping[VerifiedKey, str],
        keys: Sequence[VerifiedKey],
        loaded: Sequence[LoadedKeys],
        kept: set[str],
    ) -> _Contents:
        """Return the contents; a key that failed its self-test does not replace the owner's old one; blocking."""
        before = self._contents.by_address
        by_address: dict[str, VerifiedKey] = {}
        for key in keys:
            if key not in refused:
                by_address[key.address] = key
            elif key.address in before:
                by_address[key.address] = before[key.address]
                kept.add(key.address)
        for address in chain(by_address, *(each.named for each in loaded)):
            self._named.add(address)
        failed = {**_failures_of(loaded), **{key.uri: reason for key, reason in refused.items()}}
        return _Contents(by_address, failed, loaded, kept)


def _with_kept(
    old: Sequence[LoadedKeys], new: Sequence[LoadedKeys], errors: Collection[int]
) -> tuple[Sequence[LoadedKeys], set[str]]:
    """Return ``new`` with the old keys that are still there and could not be loaded, and their owners; blocking."""
    opened = {key.address for each in new for key in each.keys}
    with_kept: list[LoadedKeys] = []
    kept: set[str] = set()
    for index, (before, now) in enumerate(zip(old or [LoadedKeys(())] * len(new), new, strict=True)):
        keys = [
            key
            for key in before.keys
            if key.address not in opened and (index in errors or key.uri in now.failures or key.address in now.named)
        ]
        kept.update(key.address for key in keys)
        with_kept.append(replace(now, keys=[*now.keys, *keys]))
    return with_kept, kept


def _failures_of(loaded: Sequence[LoadedKeys]) -> dict[str, str]:
    return {uri: reason for each in loaded for uri, reason in each.failures.items()}


def _report(old: _Contents, new: _Contents) -> KeyReloadReport:
    before, after = old.by_address, new.by_address  # both are ordered
    return KeyReloadReport(
        added=tuple(address for address in after if address not in before),
        removed=tuple(address for address in before if address not in after),
        unchanged=tuple(address for address in after if address in before),
        failed=new.failed,
        kept=tuple(address for address in after if address in new.kept),
    )


def _keys_of(contents: _Contents) -> list[object]:
    """Return all objects of the keys."""
    return [*contents.by_address.values(), *(key for each in contents.loaded for key in each.keys)]
