"""The key that signs our requests to the card API, in a PKCS #11 token: ECDSA on P-384 (RFC 9421 §3.3.5).

* A URI of RFC 7512 names exactly one key (``object=`` or ``id=``), beside the token and the library: the same as for
  owners' keys (``signer.adapters.keys.pkcs11.backend``), and the same token may hold both.
* The signature base is hashed here; the token signs the SHA-384 digest (CKM_ECDSA) and gives ``r ‖ s``, 48 bytes each.
* It signs on the token's threads: the event loop never waits for a token. How long a request waits for its signature is
  the caller's affair; a call that hangs, and a token that is gone, are told by themselves (``_pkcs11_token``).
* A key that has been opened works: it has signed a fixed text, and `cryptography` has verified that signature.
* Neither the PIN nor the key is ever shown; ``public_pem`` is what is registered with the card API.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.curves import P384
from signer.adapters.keys.pkcs11.index import TokenKey
from signer.adapters.keys.pkcs11.supervisor import HealthChanged
from signer.adapters.keys.pkcs11.token import Token, TokenUnavailable
from signer.adapters.keys.pkcs11.uri import SCHEME, Pkcs11Uri
from signer.adapters.request_signing.local_key import (
    SCALAR_BYTES,
    SIGNATURE_BYTES,
    RequestKeyError,
    RequestKeyFailed,
    RequestKeyUnavailable,
)

_SELF_TEST: Final = b"signer: the request-signing key works"


class RequestKeyNotInToken(RequestKeyError):
    """The token, or the one key that is meant in it, cannot be had."""


class Pkcs11RequestKey:
    """A request-signing key in a token.

    Attributes:
        keyid: the id under which the card API knows the public key.
        uri: where the key is, without secrets.
        public_pem: the public key as PEM (SubjectPublicKeyInfo), to be registered with the card API.
        library: what signs, for the log.
    """

    library = "PKCS #11"

    def __init__(self, token: Token, key: TokenKey, keyid: str) -> None:
        """Take a token that is open, and one of its keys."""
        self.keyid = keyid
        self.uri = key.uri
        self.public_pem = P384.pem(key.public_key).encode("ascii")
        self._token = token
        self._public_key = key.public_key

    async def sign(self, base: bytes) -> bytes:
        """Sign a signature base (RFC 9421 §2.5).

        Args:
            base: the base's ASCII bytes, not hashed.

        Returns:
            96 bytes: ``r || s``, 48 bytes each (RFC 9421 §3.3.5).

        Raises:
            RequestKeyUnavailable: the token does not sign now, and may later.
            RequestKeyFailed: what it gave is no signature.
        """
        try:
            signature = await self._token.sign(self._public_key, _digest(base))
        except TokenUnavailable as exc:
            raise RequestKeyUnavailable(
                f"the token did not sign with the request-signing key: {exc}",
                f"the token that holds the request-signing key did not sign: {exc.brief}",
                exc.retry_after,
            ) from exc
        if len(signature) != SIGNATURE_BYTES:
            raise RequestKeyFailed(f"the token gave no {SIGNATURE_BYTES} bytes r || s (RFC 9421 §3.3.5)")
        return signature

    def unavailable_for(self) -> float | None:
        """Say for how many seconds at least the token is down; ``None`` where it is not."""
        return self._token.unavailable_for()

    async def close(self) -> None:
        """Close the token's sessions."""
        await self._token.close()

    def __repr__(self) -> str:
        return f"Pkcs11RequestKey(keyid={self.keyid!r}, uri={self.uri!r})"


async def open_pkcs11_request_key(
    uri: str,
    keyid: str,
    health_changed: HealthChanged = lambda _problem: None,
) -> Pkcs11RequestKey:
    """Open the request-signing key in its token.

    Args:
        uri: a ``pkcs11:`` URI that names one key.
        keyid: the id that the card API gave for its public key.
        health_changed: called when the token stops working, with the reason, and with ``None`` when it works again.

    Raises:
        RequestKeyError: with what to do about it.
    """
    wanted = _read(uri)
    if not wanted.names_one_key:
        raise RequestKeyNotInToken(f"{wanted} does not say which key signs requests: add object=<label> or id=%…")
    token = Token(wanted, P384, _digest(_SELF_TEST), health_changed)
    try:
        try:
            index = await token.load(lambda _done, _total: None)
        except TokenUnavailable as exc:
            raise RequestKeyNotInToken(f"the token of the request-signing key cannot be used: {exc}") from exc
        if len(index.keys) != 1:
            reason = "; ".join(index.failures.values())
            raise RequestKeyNotInToken(f"the request-signing key {wanted} cannot be used: {reason}")
        key = Pkcs11RequestKey(token, index.keys[0], keyid)
        _verify(key.public_pem, await key.sign(_SELF_TEST))
    except BaseException:
        await token.close()
        raise
    return key


def _read(uri: str) -> Pkcs11Uri:
    try:
        key_uri = KeyUri.parse(uri)
        if key_uri.scheme != SCHEME:
            raise KeyUriInvalid(f"the request-signing key cannot be {key_uri.scheme}: write {SCHEME}:token=…;object=…")
        return Pkcs11Uri.read(key_uri)
    except KeyUriInvalid as exc:
        raise RequestKeyNotInToken(str(exc)) from exc


def _digest(base: bytes) -> bytes:
    return hashlib.sha384(base).digest()


def _verify(public_pem: bytes, signature: bytes) -> None:
    r, s = (int.from_bytes(half) for half in (signature[:SCALAR_BYTES], signature[SCALAR_BYTES:]))
    public_key = load_pem_public_key(public_pem)
    try:
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise TypeError("no elliptic-curve key")
        public_key.verify(encode_dss_signature(r, s), _SELF_TEST, ec.ECDSA(SHA384()))
    except (InvalidSignature, TypeError, ValueError) as exc:
        raise RequestKeyFailed(
            "the request-signing key in the token does not fit the public key beside it: put the right one there",
        ) from exc
