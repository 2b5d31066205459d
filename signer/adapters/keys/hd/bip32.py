"""BIP-32: the tree of private keys that is derived from one seed, over libsecp256k1.

* A node has a private key and a chain code. Its public key is computed once, so a non-hardened child's address needs
  only ``K + IL·G`` (BIP-32, *public parent key → public child key*).
* Signing keys are derived when needed, as 32 bytes; no ``ExtendedKey`` is created for them.
* One index in 2^127 has no key. The methods return ``None`` for it and raise nothing, because a traceback would hold
  the parent.
* ``repr`` shows no secret. A node cannot be pickled or copied.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final, Self

from coincurve import PublicKey

from signer.adapters.secret_files import NotCopyable
from signer.domain.ethereum import SECP256K1_N

HARDENED: Final = 0x8000_0000
"""Added to an index for a hardened child: ``44'`` is ``44 + HARDENED``."""

MIN_SEED_BYTES: Final = 16
MAX_SEED_BYTES: Final = 64

_MASTER: Final = b"Bitcoin seed"
_HALF: Final = 32


class ExtendedKey(NotCopyable):
    """An extended private key: a node of the tree."""

    __slots__ = ("_chain_code", "_point", "_scalar", "_serialized_point")

    def __init__(self, secret: bytes, chain_code: bytes) -> None:
        """Create the node.

        Args:
            secret: 32 bytes, 1 … n-1.
            chain_code: 32 bytes.

        Raises:
            ValueError: ``secret`` is not a private key.
        """
        self._scalar = int.from_bytes(secret)
        self._chain_code = chain_code
        self._point = PublicKey.from_valid_secret(secret)
        self._serialized_point = self._point.format(compressed=True)

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the master key (BIP-32, *master key generation*).

        Args:
            seed: 16 to 64 bytes; BIP-39 seeds have 64.

        Raises:
            ValueError: the seed has another length, or has no master key (probability about 2^-127).
        """
        if not MIN_SEED_BYTES <= len(seed) <= MAX_SEED_BYTES:
            raise ValueError(f"a seed is {MIN_SEED_BYTES} to {MAX_SEED_BYTES} bytes")
        digest = hmac.digest(_MASTER, seed, "sha512")
        return cls(digest[:_HALF], digest[_HALF:])

    def child(self, index: int) -> ExtendedKey | None:
        """Return a child node (BIP-32, *private parent key → private child key*)."""
        tweak, chain_code = self._tweak(index)
        secret = self._tweaked(tweak)
        return None if secret is None else ExtendedKey(secret, chain_code)

    def descendant(self, path: Iterable[int]) -> ExtendedKey | None:
        """Return the node at the end of a path that starts here."""
        node: ExtendedKey | None = self
        for index in path:
            if node is None:
                break
            node = node.child(index)
        return node

    def leaf_secret(self, index: int) -> bytes | None:
        """Return a child's private key, 32 bytes; 4 µs."""
        return self._tweaked(self._tweak(index)[0])

    def leaf_public_key(self, index: int) -> bytes | None:
        """Return a child's public key, 65 bytes; 23 µs if it is not hardened."""
        tweak = self._tweak(index)[0]
        if index < HARDENED:
            try:
                return self._point.add(tweak).format(compressed=False)
            except ValueError:  # IL ≥ n, or the point at infinity
                return None
        secret = self._tweaked(tweak)
        return None if secret is None else PublicKey.from_valid_secret(secret).format(compressed=False)

    def _tweak(self, index: int) -> tuple[bytes, bytes]:
        """Return ``(IL, IR)`` of a child."""
        parent = b"\x00" + self._scalar.to_bytes(_HALF) if index >= HARDENED else self._serialized_point
        digest = hmac.digest(self._chain_code, parent + index.to_bytes(4), "sha512")
        return digest[:_HALF], digest[_HALF:]

    def _tweaked(self, tweak: bytes) -> bytes | None:
        added = int.from_bytes(tweak)
        scalar = (added + self._scalar) % SECP256K1_N
        return None if added >= SECP256K1_N or scalar == 0 else scalar.to_bytes(_HALF)

    def __repr__(self) -> str:
        return "ExtendedKey(***)"
