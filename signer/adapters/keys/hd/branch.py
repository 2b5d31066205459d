"""One branch of a BIP-32 tree as signing keys: each index of the open place is an owner.

The address of an owner is kept. The private key is derived for each signature and lent to libsecp256k1, 4 µs; nothing
keeps it. What stays in memory is the node above, which can make all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn, SupportsIndex

from coincurve import PrivateKey

from signer.adapters.keys.hd.bip32 import ExtendedKey
from signer.adapters.keys.hd.path import DerivationPath
from signer.domain.ethereum import Eip191Message, address_of_public_key

_NOBODYS_SECRET: Final = (1).to_bytes(32)


class Branch:
    """The part of a tree that a path opens: every index of it is a key. It shows and gives away none."""

    __slots__ = ("_parent", "_path", "_pen", "_uri")

    def __init__(self, parent: ExtendedKey, path: DerivationPath, uri: str) -> None:
        """Take the node in front of the path's open place.

        Args:
            parent: that node.
            path: the whole path.
            uri: the seed's, without parameters.
        """
        self._parent = parent
        self._path = path
        self._uri = uri
        # A coincurve key makes two public keys of itself when it is made, 27 µs that a signature has no use for. So one
        # is kept, and lent the secret of whoever signs. The finisher would refuse what it signed for somebody else.
        self._pen = PrivateKey(_NOBODYS_SECRET)

    def uri(self, index: int) -> str:
        """Name a key."""
        return f"{self._uri}?path={self._path.at(index)}"

    def address(self, index: int) -> str | None:
        """Give an owner, EIP-55; ``None`` where BIP-32 has no key there."""
        branch = self._above_leaf(index)
        public_key = None if branch is None else branch.leaf_public_key(self._leaf(index))
        return None if public_key is None else address_of_public_key(public_key)

    def sign(self, index: int, digest: bytes) -> bytes:
        """Give 65 bytes ``r ‖ s ‖ v``. For the event loop's thread only."""
        branch = self._above_leaf(index)
        secret = None if branch is None else branch.leaf_secret(self._leaf(index))
        if secret is None:
            raise LookupError("BIP-32 has no key there")
        self._pen.secret = secret
        try:
            return self._pen.sign_recoverable(digest, hasher=None)
        finally:
            self._pen.secret = _NOBODYS_SECRET

    def _above_leaf(self, index: int) -> ExtendedKey | None:
        """Give the node whose child the index's key is."""
        if not self._path.after:
            return self._parent
        node = self._parent.child(self._path.number(index))
        return None if node is None else node.descendant(self._path.after[:-1])

    def _leaf(self, index: int) -> int:
        return self._path.after[-1] if self._path.after else self._path.number(index)

    def __repr__(self) -> str:
        return f"Branch({self._uri!r}, {str(self._path)!r}, ***)"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse: a key is not pickled and not copied."""
        raise TypeError("a key is not pickled and not copied")


class HdKey:
    """A ``BackendKey``: an owner, and the index that it has in a branch."""

    __slots__ = ("_branch", "_index", "address")

    address: str

    def __init__(self, branch: Branch, index: int, address: str) -> None:
        self._branch = branch
        self._index = index
        self.address = address

    @property
    def uri(self) -> str:
        """The seed and the key's path."""
        return self._branch.uri(self._index)

    async def sign(self, message: Eip191Message) -> bytes:
        """Give 65 bytes ``r ‖ s ‖ v``: nonce after RFC 6979, low-s by libsecp256k1 itself."""
        return self._branch.sign(self._index, message.digest)

    def __repr__(self) -> str:
        return f"HdKey(address={self.address!r}, uri={self.uri!r}, ***)"


def addresses(branch: Branch, indexes: Sequence[int]) -> list[str | None]:
    """Give the owners of some indexes, in their order; 40 µs each, blocking."""
    return [branch.address(index) for index in indexes]
