"""A key in this process's memory, signing with libsecp256k1.

* It signs on the event loop: 18 µs, where a hop to a thread costs more.
* It shows itself by address and URI only. It is not pickled and not copied, and no ``__dict__`` holds it, so that
  neither a log line, nor a traceback with its variables, nor another process's queue carries it away.
* What Python cannot promise: bytes are not wiped, and whoever reads this process's memory reads the key.
"""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from coincurve import PrivateKey

from signer.domain.ethereum import Eip191Message, address_of_public_key


class LocalKey:
    """A ``BackendKey`` whose secret is here."""

    __slots__ = ("_key", "address", "uri")

    address: str
    uri: str

    def __init__(self, secret: bytes, uri: str) -> None:
        """Take the key.

        Args:
            secret: 32 bytes, big-endian, 1 … n-1 (SEC 1 v2 §3.2.1).
            uri: where it came from, without secrets.

        Raises:
            ValueError: it is no secp256k1 key; the text does not quote it.
        """
        if len(secret) != 32:  # noqa: PLR2004 - a scalar's width
            raise ValueError("a secp256k1 key is 32 bytes")
        self._key = PrivateKey(secret)
        self.address = address_of_public_key(self._key.public_key.format(compressed=False))
        self.uri = uri

    async def sign(self, message: Eip191Message) -> bytes:
        """Give 65 bytes ``r ‖ s ‖ v``: nonce after RFC 6979, low-s by libsecp256k1 itself."""
        return self._key.sign_recoverable(message.digest, hasher=None)

    def __repr__(self) -> str:
        return f"LocalKey(address={self.address!r}, uri={self.uri!r}, ***)"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse: see the module."""
        raise TypeError("a key is not pickled and not copied")


def new_secret() -> bytes:
    """Make a private key of the system's randomness: 32 bytes, 1 … n-1."""
    return PrivateKey().secret
