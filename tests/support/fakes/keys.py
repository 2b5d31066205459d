"""The ports ``SigningKey``, ``KeyRing`` and ``SignatureVerifier``: real secp256k1 (coincurve), keys in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import coincurve
from coincurve._libsecp256k1 import ffi  # type: ignore[import-not-found]

from signer.adapters.keys.backend import BackendResources
from signer.adapters.keys.opening_pool import OpeningPool
from signer.application.ports import KeyRingStatus, SigningKey
from signer.domain.errors import SignerError
from signer.domain.ethereum import Eip191Message, EvmSignature, address_of_public_key

_V_OFFSET = 27


class FakeKey:
    """A key in memory, with faults.

    Attributes:
        address: EIP-55.
        uri: ``fake:`` and the address.
        signed: how many signatures it has returned.
        asked: how often ``sign`` was called.
        failure: raised by ``sign`` if set.
        open: while it is not set, signing waits.

    Args:
        secret: 32 bytes.
        restless: whether each signature of a message differs, as from hardware.
    """

    def __init__(self, secret: bytes, *, restless: bool = False) -> None:
        self._restless = restless
        self._key = coincurve.PrivateKey(secret)
        self.address = address_of_public_key(self._key.public_key.format(compressed=False))
        self.uri = f"fake:{self.address}"
        self.signed = 0
        self.asked = 0
        self.failure: SignerError | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def sign(self, message: Eip191Message) -> EvmSignature:
        """Sign the digest; libsecp256k1 returns low-s (EIP-2)."""
        self.asked += 1
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        self.signed += 1
        entropy = ffi.new("unsigned char[32]", self.signed.to_bytes(32)) if self._restless else ffi.NULL
        signature = self._key.sign_recoverable(message.digest, hasher=None, custom_nonce=(ffi.NULL, entropy))
        return EvmSignature.from_bytes(signature[:64] + bytes([_V_OFFSET + signature[64]]))


class FakeKeyRing:
    """The given keys; ``status`` returns ``state`` if it is set, and ``expected`` owners have no key now."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self._keys = {key.address: key for key in keys}
        self.expected: set[str] = set()
        self.state: KeyRingStatus | None = None

    def find(self, address: str) -> SigningKey | None:
        """Return the key of an address."""
        return self._keys.get(address)

    def expects(self, address: str) -> bool:
        """Return whether the owner is in ``expected``, or has a key."""
        return address in self._keys or address in self.expected

    def keys(self) -> Sequence[SigningKey]:
        """Return every key, ordered by address."""
        return [self._keys[address] for address in sorted(self._keys)]

    def status(self) -> KeyRingStatus:
        """Return ``state``, or a status without problems."""
        return self.state or KeyRingStatus(len(self._keys), loading=False, missing=(), failed={})


class FakeVerifier:
    """Recovers with libsecp256k1."""

    def signer_of(self, message: Eip191Message, signature: EvmSignature) -> str | None:
        """Return the address that the signature recovers to."""
        compact = signature.to_bytes()[:64] + bytes([signature.y_parity])
        try:
            public_key = coincurve.PublicKey.from_signature_and_message(compact, message.digest, hasher=None)
        except Exception:  # noqa: BLE001 - coincurve raises a bare Exception
            return None
        return address_of_public_key(public_key.format(compressed=False))


def opening_pool(*, memory_budget: int = 1 << 30, threads: int = 0) -> OpeningPool:
    """Create a pool of the usual size."""
    return OpeningPool(memory_budget=memory_budget, threads=threads)


def backend_resources() -> BackendResources:
    """Create what a backend needs, for tests that do not look at it."""
    return BackendResources(opening_pool())
