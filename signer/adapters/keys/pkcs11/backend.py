"""The key backend ``pkcs11:``, for keys in a PKCS #11 token: SoftHSM, YubiHSM, Luna, CloudHSM.

It loads all secp256k1 keys that may sign, or the one that ``object=`` or ``id=`` names. A key signs the digest
(CKM_ECDSA) and never leaves the token. ``docs/keys/pkcs11.md`` is for the operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from signer.adapters.curves import SECP256K1
from signer.adapters.keys.backend import BackendResources, KeyBackendError, LoadedKeys, Progress
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.errors import TokenUnavailable
from signer.adapters.keys.pkcs11.index import TokenIndex
from signer.adapters.keys.pkcs11.token import Pkcs11Token
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import Eip191Message, self_test_message


@dataclass(frozen=True, slots=True, eq=False)
class Pkcs11Key:
    """A ``BackendKey`` in a token; ``_public_key`` is ``X ‖ Y``."""

    address: str
    uri: str
    _token: Pkcs11Token = field(repr=False)
    _public_key: bytes = field(repr=False)
    signs_at_once: ClassVar[bool] = False

    async def sign(self, message: Eip191Message) -> bytes:
        """Return 64 bytes ``r ‖ s``; ``s`` may be high."""
        try:
            return await self._token.sign(self._public_key, message.digest, self.uri)
        except TokenUnavailable as exc:
            raise Unavailable(
                ErrorCode.KEY_BACKEND_UNAVAILABLE,
                f"The token that holds the key did not sign: {exc.public_reason}.",
                retry_after=exc.retry_after,
                cause=exc.cause,
            ) from exc


class Pkcs11Backend:
    """A ``KeyBackend`` over one token. A reload keeps the objects of the keys that it finds again."""

    def __init__(self, uri: Pkcs11Uri, resources: BackendResources) -> None:
        """Create the backend; nothing is loaded or opened before ``load``."""
        self._uri = uri
        self._opening = resources.opening
        self._token = Pkcs11Token(
            uri, SECP256K1, self_test_message().digest, partial(resources.health_changed, str(uri))
        )
        self._keys: Mapping[tuple[bytes, str], Pkcs11Key] = {}

    @property
    def uri(self) -> str:
        """The token and, if the URI names one, the key, without library and PIN file."""
        return str(self._uri)

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``. Each call connects again and reads the PIN file again if it has to log in."""
        try:
            index = await self._token.load(progress)
        except TokenUnavailable as exc:
            raise KeyBackendError(f"the token {self._uri} cannot be used: {exc}", exc.cause) from exc
        # Each address takes two Keccak-256, too slow for the event loop with thousands of keys.
        self._keys = await self._opening.run(partial(self._keys_of, index))
        return LoadedKeys(tuple(self._keys.values()), index.failures)

    async def close(self) -> None:
        """Close the sessions and release the library."""
        await self._token.close()

    def _keys_of(self, index: TokenIndex) -> Mapping[tuple[bytes, str], Pkcs11Key]:
        found = {(key.public_key, key.uri): key for key in index.keys}
        return {
            name: self._keys.get(name) or Pkcs11Key(key.address, key.uri, self._token, key.public_key)
            for name, key in found.items()
        }


def create_pkcs11_backend(uri: KeyUri, resources: BackendResources) -> Pkcs11Backend:
    """Create the backend of a ``pkcs11:`` URI.

    Raises:
        KeyUriInvalid: the URI is not valid; the text says what to write instead.
    """
    return Pkcs11Backend(Pkcs11Uri.parse(uri), resources)
