"""Putting keys into a token, and reading public keys out of it: for the command line, never for the service.

* A key made here is the token's (``CKA_TOKEN``), private, sensitive and never extractable, and may do nothing but sign.
  An imported key is the same from then on; where it came from, somebody may still have it.
* Both halves carry the label, and one ``CKA_ID`` of their own, by which the private key finds its public one.
* A key that has been put in works: it has signed, and the signature verifies. One that does not is taken out again.
* All functions block. They use a session that may write, and log in as the user, like the service.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.cryptoki.constants import CKK_EC, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, LibraryBusy
from signer.adapters.keys.pkcs11.cryptoki.structures import AttributeArray, LibraryUnusable
from signer.adapters.keys.pkcs11.curves import SECP256K1, Curve
from signer.adapters.keys.pkcs11.index import index_keys
from signer.adapters.keys.pkcs11.login import TokenError, find_token, log_in
from signer.adapters.keys.pkcs11.modules import share_module
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri
from signer.domain.ethereum import address_of_public_key

_ID_BYTES: Final = 16
_POINT_BYTES: Final = 160
_HASH_FOR_SCALAR_BYTES: Final = {32: SHA256, 48: SHA384}
_TEST_TEXT: Final = b"challenge-signer: a key that was put into a token signs"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a key in the token.

    Attributes:
        uri: of the private key, without secrets.
        public_key: ``X ‖ Y``.
        curve: its curve.
    """

    uri: str
    public_key: bytes
    curve: Curve

    @property
    def address(self) -> str:
        """The owner, EIP-55; it means something on secp256k1 only."""
        return address_of_public_key(self.public_key)

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo."""
        return self.curve.pem(self.public_key)


def generate_key(uri: str, *, curve: Curve = SECP256K1) -> PublicKey:
    """Have the token make a key.

    Args:
        uri: of the token; ``object=`` is the new key's label, and has to be there, ``id=`` its id.
        curve: of the key: secp256k1 for an owner's, P-384 for the one that signs requests to the card API.

    Raises:
        KeyBackendError: it cannot be done, or there is such a key already.
    """
    with open_token(uri) as token:
        label, key_id = token.new_name(curve)
        public = _public(label, key_id, curve)
        del public[Cka.CLASS]
        private = _private(label, key_id, curve)
        for fixed in (Cka.CLASS, Cka.EC_PARAMS):  # they follow from the public key
            del private[fixed]
        handles = token.cryptoki.generate_key_pair(token.session, public, private)
        return token.proven(handles, label, key_id, curve)


def import_key(uri: str, secret: bytes, *, curve: Curve = SECP256K1) -> PublicKey:
    """Put a key into the token that was made elsewhere.

    Args:
        uri: see ``generate_key``.
        secret: the private key, big-endian, as wide as the curve's order.
        curve: of the key.

    Raises:
        KeyBackendError: it cannot be done, or there is such a key already.
        ValueError: the secret is no key of the curve; the text does not quote it.
    """
    public_key = curve.public_key_of(secret)
    with open_token(uri) as token:
        label, key_id = token.new_name(curve)
        handles = token.put(secret, public_key, label, key_id, curve)
        return token.proven(handles, label, key_id, curve)


def export_public(uri: str, *, curve: Curve = SECP256K1) -> Sequence[PublicKey]:
    """Read the public keys of all keys that a URI means, without those that could not be used.

    Raises:
        KeyBackendError: it cannot be done.
    """
    with open_token(uri, writable=False) as token:
        index = index_keys(token.cryptoki, token.session, token.uri, curve, lambda _done, _total: None)
        return [PublicKey(key.uri, key.public_key, curve) for key in index.keys]


def remove_key(uri: str, *, curve: Curve = SECP256K1) -> PublicKey:
    """Take the one key that a URI names, both halves, out of the token for ever.

    Raises:
        KeyBackendError: it cannot be done, or the URI does not name exactly one key.
    """
    with open_token(uri) as token:
        index = index_keys(token.cryptoki, token.session, token.uri, curve, lambda _done, _total: None)
        if not token.uri.names_one_key or len(index.keys) != 1:
            raise KeyBackendError(f"{token.uri} does not name exactly one key of {curve.name}: add id=")
        key = index.keys[0]
        halves = token.cryptoki.find_objects(token.session, {Cka.KEY_TYPE: CKK_EC, Cka.ID: token.id_of(key.handle)})
        token.destroy(halves)
        return PublicKey(key.uri, key.public_key, curve)


@dataclass(frozen=True, slots=True)
class OpenToken:
    """A token, with a session that is logged in."""

    cryptoki: Cryptoki
    session: int
    uri: Pkcs11Uri

    def new_name(self, curve: Curve) -> tuple[bytes, bytes]:
        """Give label and id of a new key.

        Raises:
            KeyBackendError: there is no label, or the name is taken.
        """
        if self.uri.label is None:
            raise KeyBackendError(f"{self.uri} does not name the new key: add object=<label>")
        key_id = secrets.token_bytes(_ID_BYTES) if self.uri.key_id is None else self.uri.key_id
        taken: Mapping[str, Mapping[Cka, bytes | int]] = {
            "label": {Cka.CLASS: CKO_PRIVATE_KEY, Cka.LABEL: self.uri.label},
            "id": {Cka.KEY_TYPE: CKK_EC, Cka.ID: key_id},
        }
        for what, template in taken.items():
            if self.cryptoki.find_objects(self.session, template):
                raise KeyBackendError(f"the token has a key of that {what} already; no key of {curve.name} was made")
        return self.uri.label, key_id

    def put(self, secret: bytes, public_key: bytes, label: bytes, key_id: bytes, curve: Curve) -> tuple[int, int]:
        """Put both halves of a key into the token, or none; nothing is looked up and nothing proven.

        Returns:
            The handles of the public and of the private key.

        Raises:
            CryptokiError: it cannot be done.
        """
        private = self.cryptoki.create_object(self.session, {**_private(label, key_id, curve), Cka.VALUE: secret})
        try:
            point = {Cka.EC_POINT: curve.write_point(public_key)}
            return self.cryptoki.create_object(self.session, {**_public(label, key_id, curve), **point}), private
        except CryptokiError:
            self.destroy([private])
            raise

    def id_of(self, handle: int) -> bytes:
        """Read ``CKA_ID``."""
        [key_id] = self.cryptoki.get_attributes(self.session, handle, AttributeArray.room_for({Cka.ID: 1024}))
        if not key_id:
            raise KeyBackendError("the key has no CKA_ID, by which both of its halves could be found")
        return key_id

    def proven(self, handles: Sequence[int], label: bytes, key_id: bytes, curve: Curve) -> PublicKey:
        """Give the key whose public and private halves are ``handles``, once it has shown that it signs.

        Raises:
            KeyBackendError: it does not. It is in the token no more.
        """
        public_handle, private_handle = handles
        hashed = _HASH_FOR_SCALAR_BYTES[curve.scalar_bytes]()
        digest = hashlib.new(hashed.name, _TEST_TEXT).digest()
        try:
            room = AttributeArray.room_for({Cka.EC_POINT: _POINT_BYTES})
            [point] = self.cryptoki.get_attributes(self.session, public_handle, room)
            key = PublicKey(self.uri.of_key(label, key_id), curve.read_point(point or b""), curve)
            raw = self.cryptoki.sign(self.session, private_handle, digest, curve.signature_bytes)
            r, s = int.from_bytes(raw[: curve.scalar_bytes]), int.from_bytes(raw[curve.scalar_bytes :])
            public_key = load_pem_public_key(key.pem.encode("ascii"))
            if not isinstance(public_key, ec.EllipticCurvePublicKey):
                raise TypeError("no elliptic-curve key")
            public_key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashed)))
        except (CryptokiError, InvalidSignature, TypeError, ValueError) as exc:
            self.destroy(handles)
            raise KeyBackendError("the token does not sign with the key, which was taken out again") from exc
        return key

    def destroy(self, handles: Sequence[int]) -> None:
        """Take objects out of the token, as far as it lets us."""
        for handle in handles:
            with suppress(CryptokiError):
                self.cryptoki.destroy_object(self.session, handle)


@contextmanager
def open_token(uri: str, *, writable: bool = True) -> Iterator[OpenToken]:
    """Open a session with the token, log in, and close it.

    Raises:
        KeyBackendError: anything is wrong with the token, there or in the body.
    """
    wanted = Pkcs11Uri.read(KeyUri.parse(uri))
    module = share_module(wanted.module)
    try:
        cryptoki = module.current()
        slot, info = find_token(cryptoki, wanted)
        session = cryptoki.open_session(slot, writable=writable)
        try:
            log_in(module, cryptoki, session, info, wanted.pin_file)
            yield OpenToken(cryptoki, session, wanted)
        finally:
            with suppress(CryptokiError):
                cryptoki.close_session(session)
    except (CryptokiError, LibraryBusy, LibraryUnusable, TokenError) as exc:
        raise KeyBackendError(f"the token {wanted} cannot be used: {exc}") from exc
    finally:
        module.release()


def _public(label: bytes, key_id: bytes, curve: Curve) -> dict[Cka, bytes | bool | int]:
    return {
        Cka.CLASS: CKO_PUBLIC_KEY,
        Cka.KEY_TYPE: CKK_EC,
        Cka.TOKEN: True,
        Cka.PRIVATE: False,
        Cka.VERIFY: True,
        Cka.LABEL: label,
        Cka.ID: key_id,
        Cka.EC_PARAMS: curve.params,
    }


def _private(label: bytes, key_id: bytes, curve: Curve) -> dict[Cka, bytes | bool | int]:
    return {
        Cka.CLASS: CKO_PRIVATE_KEY,
        Cka.KEY_TYPE: CKK_EC,
        Cka.TOKEN: True,
        Cka.PRIVATE: True,
        Cka.SENSITIVE: True,
        Cka.EXTRACTABLE: False,
        Cka.SIGN: True,
        Cka.LABEL: label,
        Cka.ID: key_id,
        Cka.EC_PARAMS: curve.params,
    }
