"""The request key in a PKCS #11 token.

* Its URI is one of ``signer.adapters.keys.pkcs11.uri`` and names exactly one key. The same token may hold owners' keys.
* The signature base is hashed here, and the token signs the digest (CKM_ECDSA).
* The token's threads sign, and the event loop does not wait for them. The token notices calls that hang; the caller
  sets the deadline of a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from signer.adapters.curves import P384
from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.errors import TokenUnavailable
from signer.adapters.keys.pkcs11.token import Pkcs11Token, ProblemChanged
from signer.adapters.keys.pkcs11.uri import SCHEME, Pkcs11Uri
from signer.adapters.request_signing.request_key import (
    SELF_TEST,
    RequestKeyError,
    RequestKeyUnavailable,
)


@dataclass(frozen=True, slots=True, eq=False)
class Pkcs11RequestKey:
    """A request key in a token.

    Attributes:
        uri: the key's URI without secrets.
    """

    keyid: str
    uri: str
    _token: Pkcs11Token = field(repr=False)
    _public_key: bytes = field(repr=False)
    signs_at_once: ClassVar[bool] = False

    @property
    def public_pem(self) -> bytes:
        """The public key as PEM (SubjectPublicKeyInfo), for the registration."""
        return P384.pem(self._public_key).encode("ascii")

    async def sign(self, base: bytes) -> bytes:
        """See ``RequestKey.sign``."""
        try:
            return await self._token.sign(self._public_key, P384.digest(base))
        except TokenUnavailable as exc:
            raise RequestKeyUnavailable(
                f"the token did not sign with the request key: {exc}",
                f"the token that holds the request key did not sign: {exc.public_reason}",
                exc.retry_after,
            ) from exc

    def unavailable_for(self) -> float | None:
        """See ``RequestKey.unavailable_for``."""
        return self._token.unavailable_for()

    async def close(self) -> None:
        """Close the token's sessions."""
        await self._token.close()


async def open_pkcs11_request_key(
    uri: str,
    keyid: str,
    problem_changed: ProblemChanged = lambda _problem: None,
) -> Pkcs11RequestKey:
    """Open the request key that a ``pkcs11:`` URI names.

    Raises:
        RequestKeyError: the key cannot be used; the text says what to do.
    """
    wanted = request_key_uri(uri)
    token = Pkcs11Token(wanted, P384, P384.digest(SELF_TEST), problem_changed)
    try:
        try:
            index = await token.load(lambda _done, _total: None)
        except TokenUnavailable as exc:
            raise RequestKeyError(f"the token of the request key cannot be used: {exc}") from exc
        if len(index.keys) != 1:
            reason = "; ".join(index.failures.values())
            raise RequestKeyError(f"the request key {wanted} cannot be used: {reason}")
        [found] = index.keys
        key = Pkcs11RequestKey(keyid, found.uri, token, found.public_key)
        if not P384.is_signature(await key.sign(SELF_TEST), P384.digest(SELF_TEST), found.public_key):
            raise RequestKeyError(
                "the request key and the public key with its CKA_ID do not match: replace the public key in the token",
            )
    except BaseException:
        await token.close()
        raise
    return key


def request_key_uri(uri: str) -> Pkcs11Uri:
    """Parse the URI of a request key; raise ``RequestKeyError``."""
    try:
        key_uri = KeyUri.parse(uri)
        if key_uri.scheme != SCHEME:
            raise KeyUriInvalid(f"the request key cannot be {key_uri.scheme}: write {SCHEME}:token=…;object=…")
        wanted = Pkcs11Uri.parse(key_uri)
    except KeyUriInvalid as exc:
        raise RequestKeyError(str(exc)) from exc
    if not wanted.names_one_key:
        raise RequestKeyError(f"{wanted} does not name the request key: add object=<label> or id=%…")
    return wanted
