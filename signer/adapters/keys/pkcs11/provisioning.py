"""Creating and importing keys in a token; for the command line only.

* A key generated here is a token object (``CKA_TOKEN``), private, sensitive, not extractable, and may only sign. An
  imported key has the same attributes, but copies of it may exist elsewhere.
* The private and the public key object have the same label and the same ``CKA_ID``.
* Each new key signs, and the signature is verified. If that fails, the key is deleted.
* All functions block and log in as the user, as the service does. Those that change the token open a writable session.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from signer.adapters.curves import SECP256K1, Curve
from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.cryptoki.constants import CKK_EC, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, LibraryBusy
from signer.adapters.keys.pkcs11.cryptoki.structures import AttributeArray, LibraryUnusable
from signer.adapters.keys.pkcs11.errors import TokenError
from signer.adapters.keys.pkcs11.index import POINT_BYTES, TokenKey
from signer.adapters.keys.pkcs11.login import find_token, log_in
from signer.adapters.keys.pkcs11.modules import share_module
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri

_ID_BYTES: Final = 16
_SELF_TEST: Final = b"challenge-signer: self-test of a new key"


def generate_key(uri: str, *, curve: Curve = SECP256K1) -> TokenKey:
    """Generate a key in the token. ``object=`` in the URI is its label and required; ``id=`` is its id.

    Raises:
        KeyBackendError: it failed, or the label or the id is in use.
    """
    with open_token(uri) as token:
        label, key_id = token.new_name(curve)
        public, private = _public(label, key_id, curve), _private(label, key_id, curve)
        # The mechanism sets the classes, and the private key takes the curve of the public key.
        del public[Cka.CLASS], private[Cka.CLASS], private[Cka.EC_PARAMS]
        handles = token.cryptoki.generate_key_pair(token.session, public, private)
        return token.verified(handles, label, key_id, curve)


def import_key(uri: str, secret: bytes, *, curve: Curve = SECP256K1) -> TokenKey:
    """Import a private key (big-endian, as wide as the curve's order) into the token; for the URI see ``generate_key``.

    Raises:
        KeyBackendError: it failed, or the label or the id is in use.
        ValueError: the secret is not a private key of the curve; the text does not quote it.
    """
    public_key = curve.public_key_of(secret)
    with open_token(uri) as token:
        label, key_id = token.new_name(curve)
        handles = token.create(secret, public_key, label, key_id, curve)
        return token.verified(handles, label, key_id, curve)


@dataclass(frozen=True, slots=True)
class TokenSession:
    """A logged-in session with a token."""

    cryptoki: Cryptoki
    session: int
    uri: Pkcs11Uri

    def new_name(self, curve: Curve) -> tuple[bytes, bytes]:
        """Return the label and the id for a new key.

        Raises:
            KeyBackendError: the URI has no label, or the label or the id is in use.
        """
        if self.uri.label is None:
            raise KeyBackendError(f"{self.uri} has no label for the new key: add object=<label>")
        key_id = secrets.token_bytes(_ID_BYTES) if self.uri.key_id is None else self.uri.key_id
        conflicts: Mapping[str, Mapping[Cka, bytes | int]] = {
            "label": {Cka.CLASS: CKO_PRIVATE_KEY, Cka.LABEL: self.uri.label},
            "id": {Cka.KEY_TYPE: CKK_EC, Cka.ID: key_id},
        }
        for what, template in conflicts.items():
            if self.cryptoki.find_objects(self.session, template):
                raise KeyBackendError(f"the token already has a key with that {what}; no {curve.name} key was created")
        return self.uri.label, key_id

    def create(self, secret: bytes, public_key: bytes, label: bytes, key_id: bytes, curve: Curve) -> tuple[int, int]:
        """Create the objects of a private and a public key, or none; return the handles of public and private key."""
        private = self.cryptoki.create_object(self.session, {**_private(label, key_id, curve), Cka.VALUE: secret})
        try:
            point = {Cka.EC_POINT: curve.encode_point(public_key)}
            return self.cryptoki.create_object(self.session, {**_public(label, key_id, curve), **point}), private
        except CryptokiError:
            self.destroy([private])
            raise

    def verified(self, handles: Sequence[int], label: bytes, key_id: bytes, curve: Curve) -> TokenKey:
        """Sign with a new key (handles of the public and private key), verify, and return it.

        Raises:
            KeyBackendError: the signature is missing or wrong. The key was deleted.
        """
        public_handle, private_handle = handles
        digest = curve.digest(_SELF_TEST)
        try:
            attributes = AttributeArray.with_capacity({Cka.EC_POINT: POINT_BYTES})
            [point] = self.cryptoki.get_attributes(self.session, public_handle, attributes)
            key = TokenKey(private_handle, self.uri.uri_of_key(label, key_id), curve.parse_point(point or b""))
            signature = self.cryptoki.sign(self.session, private_handle, digest, curve.signature_bytes)
            if not curve.is_signature(signature, digest, key.public_key):
                raise ValueError("the self-test signature is not valid")
        except (CryptokiError, ValueError) as exc:
            self.destroy(handles)
            raise KeyBackendError("the token does not sign with the new key, which was deleted again") from exc
        return key

    def destroy(self, handles: Sequence[int]) -> None:
        """Delete objects from the token; errors are ignored."""
        for handle in handles:
            with suppress(CryptokiError):
                self.cryptoki.destroy_object(self.session, handle)


@contextmanager
def open_token(uri: str, *, writable: bool = True) -> Iterator[TokenSession]:
    """Open a session with the token, log in, and close it at the end.

    Raises:
        KeyBackendError: the token cannot be used, or a call in the body failed.
    """
    wanted = Pkcs11Uri.parse(KeyUri.parse(uri))
    module = share_module(wanted.module)
    try:
        cryptoki = module.initialized()
        slot, token = find_token(cryptoki, wanted)
        session = cryptoki.open_session(slot, writable=writable)
        try:
            log_in(module, cryptoki, session, token, wanted.pin_file)
            yield TokenSession(cryptoki, session, wanted)
        finally:
            with suppress(CryptokiError):
                cryptoki.close_session(session)
    except (CryptokiError, LibraryBusy, LibraryUnusable, TokenError) as exc:
        raise KeyBackendError(f"the token {wanted} cannot be used: {exc}") from exc
    finally:
        module.release()


def _public(label: bytes, key_id: bytes, curve: Curve) -> dict[Cka, bytes | bool | int]:
    return {**_shared(label, key_id, curve), Cka.CLASS: CKO_PUBLIC_KEY, Cka.PRIVATE: False, Cka.VERIFY: True}


def _private(label: bytes, key_id: bytes, curve: Curve) -> dict[Cka, bytes | bool | int]:
    only_signs = {Cka.PRIVATE: True, Cka.SENSITIVE: True, Cka.EXTRACTABLE: False, Cka.SIGN: True}
    return {**_shared(label, key_id, curve), Cka.CLASS: CKO_PRIVATE_KEY, **only_signs}


def _shared(label: bytes, key_id: bytes, curve: Curve) -> dict[Cka, bytes | bool | int]:
    return {Cka.KEY_TYPE: CKK_EC, Cka.TOKEN: True, Cka.LABEL: label, Cka.ID: key_id, Cka.EC_PARAMS: curve.params}
