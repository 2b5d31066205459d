"""BIP-32: the tree of private keys that grows out of one seed, over libsecp256k1.

* A node is ``(k, c)``: a private key and a chain code. Its public half is made once, when the node is: that makes a
  non-hardened child cheap, for its address needs no private key, only ``K + IL·G`` (BIP-32, *public parent key →
  public child key*).
* The children that are signed with are leaves: a leaf is 32 bytes, made when it is needed, and no node.
* One index in 2^127 has no key; here that is ``None``, and no exception, for its traceback would hold the parent.
* A node shows itself as ``***``. It is not pickled and not copied.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final, NoReturn, Self, SupportsIndex

from coincurve import PublicKey

from signer.domain.ethereum import SECP256K1_N

HARDENED: Final = 0x8000_0000
"""Added to an index, it makes the child a hardened one: ``44'`` is ``44 + HARDENED``."""

MIN_SEED_BYTES: Final = 16
MAX_SEED_BYTES: Final = 64

_MASTER: Final = b"Bitcoin seed"
_HALF: Final = 32


class ExtendedKey:
    """An extended private key: a node of the tree."""

    __slots__ = ("_chain_code", "_point", "_scalar", "_serialized_point")

    def __init__(self, secret: bytes, chain_code: bytes) -> None:
        """Take both halves.

        Args:
            secret: 32 bytes, 1 … n-1.
            chain_code: 32 bytes.

        Raises:
            ValueError: ``secret`` is no private key.
        """
        self._scalar = int.from_bytes(secret)
        self._chain_code = chain_code
        self._point = PublicKey.from_valid_secret(secret)
        self._serialized_point = self._point.format(compressed=True)

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Make the master key (BIP-32, *master key generation*).

        Args:
            seed: 16 to 64 bytes; BIP-39 gives 64.

        Raises:
            ValueError: the seed is of another length, or one of the 2^-127 that have no master key.
        """
        if not MIN_SEED_BYTES <= len(seed) <= MAX_SEED_BYTES:
            raise ValueError(f"a seed is {MIN_SEED_BYTES} to {MAX_SEED_BYTES} bytes")
        digest = hmac.digest(_MASTER, seed, "sha512")
        return cls(digest[:_HALF], digest[_HALF:])

    def child(self, number: int) -> ExtendedKey | None:
        """Give a child that is a node (BIP-32, *private parent key → private child key*)."""
        tweak, chain_code = self._tweak(number)
        secret = self._tweaked(tweak)
        return None if secret is None else ExtendedKey(secret, chain_code)

    def descendant(self, numbers: Iterable[int]) -> ExtendedKey | None:
        """Give the node at the end of a path, this one being its ``m``."""
        node: ExtendedKey | None = self
        for number in numbers:
            if node is None:
                break
            node = node.child(number)
        return node

    def leaf_secret(self, number: int) -> bytes | None:
        """Give a child's private key, 32 bytes; 4 µs."""
        return self._tweaked(self._tweak(number)[0])

    def leaf_public_key(self, number: int) -> bytes | None:
        """Give a child's public key, 65 bytes; 23 µs where it is not hardened."""
        tweak = self._tweak(number)[0]
        if number < HARDENED:
            try:
                return self._point.add(tweak).format(compressed=False)
            except ValueError:  # IL ≥ n, or the point at infinity
                return None
        secret = self._tweaked(tweak)
        return None if secret is None else PublicKey.from_valid_secret(secret).format(compressed=False)

    def _tweak(self, number: int) -> tuple[bytes, bytes]:
        """Give ``(IL, IR)`` of a child."""
        parent = b"\x00" + self._scalar.to_bytes(_HALF) if number >= HARDENED else self._serialized_point
        digest = hmac.digest(self._chain_code, parent + number.to_bytes(4), "sha512")
        return digest[:_HALF], digest[_HALF:]

    def _tweaked(self, tweak: bytes) -> bytes | None:
        added = int.from_bytes(tweak)
        scalar = (added + self._scalar) % SECP256K1_N
        return None if added >= SECP256K1_N or scalar == 0 else scalar.to_bytes(_HALF)

    def __repr__(self) -> str:
        return "ExtendedKey(***)"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse: see the module."""
        raise TypeError("a key is not pickled and not copied")
