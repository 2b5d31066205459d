"""``pkcs11:`` keys in a PKCS #11 token: SoftHSM, YubiHSM, Luna, CloudHSM. ``_pkcs11_uri`` has the URI, RFC 7512's.

* All keys on secp256k1 that may sign are the backend's, or the one that ``object=`` or ``id=`` names.
* A key signs the digest (CKM_ECDSA) and gives ``r ‖ s``. It never leaves the token, and neither does the PIN's file
  hold anything that the signer keeps.
* How the token is reached, watched and mended is ``_pkcs11_token``'s affair; what a person does about it stands in
  ``docs/keys/pkcs11.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from signer.adapters.keys.backend import BackendResources, KeyBackendError, LoadedKeys, Progress
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.curves import SECP256K1
from signer.adapters.keys.pkcs11.index import TokenIndex
from signer.adapters.keys.pkcs11.token import Token, TokenUnavailable
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import Eip191Message, address_of_public_key, self_test_message


class Pkcs11Key:
    """A ``BackendKey`` in a token."""

    __slots__ = ("_public_key", "_token", "address", "uri")

    address: str
    uri: str

    def __init__(self, token: Token, public_key: bytes, uri: str) -> None:
        """Name the key; ``public_key`` is ``X ‖ Y``."""
        self.address = address_of_public_key(public_key)
        self.uri = uri
        self._token = token
        self._public_key = public_key

    async def sign(self, message: Eip191Message) -> bytes:
        """Give 64 bytes ``r ‖ s``; every second ``s`` is high."""
        try:
            return await self._token.sign(self._public_key, message.digest)
        except TokenUnavailable as exc:
            raise Unavailable(
                ErrorCode.KEY_BACKEND_UNAVAILABLE,
                f"The token that holds the key did not sign: {exc.brief}.",
                retry_after=exc.retry_after,
            ) from exc

    def __repr__(self) -> str:
        return f"Pkcs11Key(address={self.address!r}, uri={self.uri!r})"


class Pkcs11Backend:
    """A ``KeyBackend`` over one token. A key that is still there after a reload is the same object."""

    def __init__(self, uri: Pkcs11Uri, resources: BackendResources) -> None:
        """Name the token; nothing is loaded or opened before ``load``."""
        self._uri = uri
        self._opening = resources.opening
        self._token = Token(uri, SECP256K1, self_test_message().digest, partial(resources.health_changed, str(uri)))
        self._keys: Mapping[tuple[bytes, str], Pkcs11Key] = {}

    @property
    def uri(self) -> str:
        """The token and, where it is one, the key; neither library nor PIN file."""
        return str(self._uri)

    @property
    def problem(self) -> str | None:
        """Why nothing can be signed now, or ``None``."""
        return self._token.problem

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``. It connects anew, so a PIN file that has changed is read."""
        try:
            index = await self._token.load(progress)
        except TokenUnavailable as exc:
            raise KeyBackendError(f"the token {self._uri} cannot be used: {exc}") from exc
        # Each address is two Keccak-256: for thousands of keys that is no work for the event loop.
        self._keys = await self._opening.run(partial(self._keys_of, index))
        return LoadedKeys(tuple(self._keys.values()), index.failures)

    async def close(self) -> None:
        """Close the sessions; the library is finalized with its last user."""
        await self._token.close()

    def _keys_of(self, index: TokenIndex) -> Mapping[tuple[bytes, str], Pkcs11Key]:
        known = self._keys
        names = ((key.public_key, key.uri) for key in index.keys)
        return {name: known.get(name) or Pkcs11Key(self._token, *name) for name in names}


def open_pkcs11(uri: KeyUri, resources: BackendResources) -> Pkcs11Backend:
    """Make the backend of a ``pkcs11:`` URI.

    Raises:
        KeyUriInvalid: with what to write instead.
    """
    return Pkcs11Backend(Pkcs11Uri.read(uri), resources)
