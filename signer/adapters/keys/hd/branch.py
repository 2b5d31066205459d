"""One branch of a BIP-32 tree as signing keys: each index is an owner.

Addresses are kept. A private key is derived for each signature (4 µs) and then dropped. The branch's parent node, from
which all its keys follow, stays in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from coincurve import PrivateKey

from signer.adapters.keys.hd.bip32 import ExtendedKey
from signer.adapters.keys.hd.path import DerivationPath
from signer.adapters.secret_files import NotCopyable
from signer.domain.ethereum import Eip191Message, address_of_public_key

_PLACEHOLDER_SECRET: Final = (1).to_bytes(32)


class Branch(NotCopyable):
    """All keys that a path with a wildcard names."""

    __slots__ = ("_parent", "_path", "_reused_key", "_uri", "fingerprint")

    def __init__(self, parent: ExtendedKey, path: DerivationPath, uri: str, fingerprint: bytes) -> None:
        """Create the branch below ``parent``, the node before the path's wildcard.

        ``uri`` is the seed's, ``fingerprint`` that of its file and password.
        """
        self.fingerprint = fingerprint
        self._parent = parent
        self._path = path
        self._uri = uri
        # A new coincurve key computes two public keys, 27 µs that a signature does not need. So one object is reused
        # with each signer's secret. If a wrong secret ever remained in it, the finisher would refuse the signature.
        self._reused_key = PrivateKey(_PLACEHOLDER_SECRET)

    @classmethod
    def of_seed(cls, seed: bytes, path: DerivationPath, uri: str, fingerprint: bytes = b"") -> Self | None:
        """Create the branch of a seed, or return ``None`` if BIP-32 has no key at the path."""
        parent = ExtendedKey.from_seed(seed).descendant(path.before)
        return None if parent is None else cls(parent, path, uri, fingerprint)

    def uri(self, index: int) -> str:
        """Return the key URI of an index."""
        return f"{self._uri}?path={self._path.at(index)}"

    def address(self, index: int) -> str | None:
        """Return an owner (EIP-55), or ``None`` if BIP-32 has no key at this index; 40 µs."""
        node = self._parent_of(index)
        public_key = None if node is None else node.leaf_public_key(self._leaf(index))
        return None if public_key is None else address_of_public_key(public_key)

    def sign(self, index: int, digest: bytes) -> bytes:
        """Return 65 bytes ``r ‖ s ‖ v``. Call it on the event loop's thread only."""
        node = self._parent_of(index)
        secret = None if node is None else node.leaf_secret(self._leaf(index))
        if secret is None:
            raise LookupError("BIP-32 has no key at this index")
        self._reused_key.secret = secret
        try:
            return self._reused_key.sign_recoverable(digest, hasher=None)
        finally:
            self._reused_key.secret = _PLACEHOLDER_SECRET

    def _parent_of(self, index: int) -> ExtendedKey | None:
        """Return the parent node of the key at an index."""
        if not self._path.after:
            return self._parent
        node = self._parent.child(self._path.number(index))
        return None if node is None else node.descendant(self._path.after[:-1])

    def _leaf(self, index: int) -> int:
        return self._path.after[-1] if self._path.after else self._path.number(index)

    def __repr__(self) -> str:
        return f"Branch({self._uri!r}, {str(self._path)!r}, ***)"


@dataclass(frozen=True, slots=True, eq=False)
class HdKey:
    """A ``BackendKey``: one index of a branch."""

    address: str
    _branch: Branch = field(repr=False)
    _index: int
    signs_at_once: ClassVar[bool] = True

    @property
    def uri(self) -> str:
        """The seed's file and the key's path."""
        return self._branch.uri(self._index)

    async def sign(self, message: Eip191Message) -> bytes:
        """Return 65 bytes ``r ‖ s ‖ v``, low-s, with the nonce of RFC 6979."""
        return self._branch.sign(self._index, message.digest)
