"""Backends and keys with faults: each changes the result of a real key of a real backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from signer.adapters.keys.backend import BackendKey, KeyBackend, LoadedKeys, Progress
from signer.domain.ethereum import SECP256K1_N, Eip191Message


class ChangedKey:
    """Returns the real signature after ``change``."""

    def __init__(self, key: BackendKey, change: Callable[[bytes], bytes]) -> None:
        self.address = key.address
        self.uri = key.uri
        self.signs_at_once = key.signs_at_once
        self._key = key
        self._change = change

    async def sign(self, message: Eip191Message) -> bytes:
        """Sign, and change the signature."""
        return self._change(await self._key.sign(message))


class ForeignKey:
    """Has one key's owner and signs with another key."""

    def __init__(self, owner: BackendKey, key: BackendKey) -> None:
        self.address = owner.address
        self.uri = owner.uri
        self.signs_at_once = key.signs_at_once
        self.sign = key.sign


class HangingKey:
    """Signs once ``answer`` is set."""

    def __init__(self, key: BackendKey) -> None:
        self.address = key.address
        self.uri = key.uri
        self.signs_at_once = False
        self.answer = asyncio.Event()
        self._key = key

    async def sign(self, message: Eip191Message) -> bytes:
        """Wait, and sign."""
        await self.answer.wait()
        return await self._key.sign(message)


class RaisingKey:
    """Raises an error, as a vendor's library might."""

    def __init__(self, key: BackendKey, error: Exception) -> None:
        self.address = key.address
        self.uri = key.uri
        self.signs_at_once = key.signs_at_once
        self._error = error

    async def sign(self, message: Eip191Message) -> bytes:
        """Raise."""
        raise self._error


class GivenBackend:
    """Has the given keys; ``load`` raises ``error`` if it is set."""

    def __init__(self, keys: Sequence[BackendKey] = (), *, uri: str = "given:", **failures: str) -> None:
        self.uri = uri
        self.keys = keys
        self.failures: Mapping[str, str] = failures
        self.named: frozenset[str] = frozenset()
        self.error: Exception | None = None
        self.loads = 0
        self._begun = asyncio.Condition()
        self.is_closed = False

    async def load(self, progress: Progress) -> LoadedKeys:
        """Return the given keys."""
        async with self._begun:
            self.loads += 1
            self._begun.notify_all()
        progress(0, len(self.keys))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        progress(len(self.keys), len(self.keys))
        return LoadedKeys(self.keys, self.failures, self.named)

    async def has_begun(self, loads: int) -> None:
        """Wait until this many loads have started."""
        async with self._begun:
            await self._begun.wait_for(lambda: self.loads >= loads)

    async def close(self) -> None:
        """Record the call."""
        self.is_closed = True


class ChangingBackend:
    """A backend whose keys are replaced."""

    def __init__(self, backend: KeyBackend, change: Callable[[Sequence[BackendKey]], Sequence[Any]]) -> None:
        self.uri = backend.uri
        self.close = backend.close
        self._backend = backend
        self._change = change

    async def load(self, progress: Progress) -> LoadedKeys:
        """Load, and replace."""
        loaded = await self._backend.load(progress)
        return LoadedKeys(self._change(loaded.keys), loaded.failures)


def r_and_s(raw: bytes) -> tuple[int, int]:
    """Parse any vendor's form."""
    if len(raw) in {64, 65}:
        return int.from_bytes(raw[:32]), int.from_bytes(raw[32:64])
    return decode_dss_signature(raw)


def as_raw(raw: bytes) -> bytes:
    """Return 64 bytes ``r ‖ s``."""
    r, s = r_and_s(raw)
    return r.to_bytes(32) + s.to_bytes(32)


def as_der(raw: bytes) -> bytes:
    """Return DER."""
    return encode_dss_signature(*r_and_s(raw))


def as_high_s(raw: bytes) -> bytes:
    """Return the valid signature whose s is n-s, 64 bytes."""
    r, s = r_and_s(raw)
    return r.to_bytes(32) + max(s, SECP256K1_N - s).to_bytes(32)


def as_high_s_der(raw: bytes) -> bytes:
    """Return the valid signature whose s is n-s, DER."""
    return as_der(as_high_s(raw))


def with_v(v: int) -> Callable[[bytes], bytes]:
    """Return 65 bytes with this ``v``, right or wrong."""
    return lambda raw: as_raw(raw) + bytes([v])


def with_high_s_and_v(v: int) -> Callable[[bytes], bytes]:
    """Return 65 bytes, high-s, with this ``v``, right or wrong."""
    return lambda raw: as_high_s(raw) + bytes([v])
