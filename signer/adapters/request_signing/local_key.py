"""The request key in a PEM file.

* The file holds one key as SEC 1 (``openssl ecparam -name secp384r1 -genkey -noout``) or PKCS#8, not encrypted. Its
  mode is not checked: Kubernetes mounts secrets as symlinks that a group may read.
* The key signs on the event loop's thread: another thread would cost more time than it saves.
* AWS-LC (package ``awscrt``) signs if it is installed, because it needs less than half of OpenSSL's time; otherwise
  `cryptography` (OpenSSL) signs.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from signer.adapters.curves import P384, coordinates
from signer.adapters.request_signing.request_key import ALGORITHM, SELF_TEST, RequestKeyError
from signer.adapters.secret_files import KeyFileError, read_file, text_of, write_new_file

_MAX_FILE_BYTES: Final = 16_384
_PEM_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_PRIVATE_LABELS: Final = {b"PRIVATE KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY", b"DSA PRIVATE KEY"}
_ENCRYPTED_LABEL: Final = b"ENCRYPTED PRIVATE KEY"
_LEGACY_ENCRYPTION: Final = b"Proc-Type: 4,ENCRYPTED"  # RFC 1421 §4.6.1.1
_CREATE_ONE: Final = "create one with: signer request-key new <file>"


class LocalRequestKey:
    """A request key in the memory of this process.

    Attributes:
        public_pem: the public key as PEM (SubjectPublicKeyInfo), for the registration.
        library: the library that signs.
    """

    __slots__ = ("_sign_der", "keyid", "library", "public_pem")

    signs_at_once: ClassVar[bool] = True

    def __init__(self, key: ec.EllipticCurvePrivateKey, keyid: str, aws_ec: Any | None = None) -> None:  # noqa: ANN401
        """Create the key. ``aws_ec`` is ``awscrt.crypto.EC`` to sign with AWS-LC, or ``None`` to sign with OpenSSL."""
        self._sign_der: Callable[[bytes], bytes]
        self.keyid = keyid
        self.public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if aws_ec is None:
            self.library = "OpenSSL"
            scheme = ec.ECDSA(SHA384())
            self._sign_der = lambda base: key.sign(base, scheme)
        else:
            self.library = "AWS-LC"
            sec1 = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            sign_digest: Callable[[bytes], bytes] = aws_ec.new_key_from_der_data(sec1).sign
            self._sign_der = lambda base: sign_digest(hashlib.sha384(base).digest())

    def __repr__(self) -> str:
        return f"LocalRequestKey(keyid={self.keyid!r})"

    async def sign(self, base: bytes) -> bytes:
        """See ``RequestKey.sign``."""
        return self.sign_now(base)

    def unavailable_for(self) -> None:
        """See ``RequestKey.unavailable_for``."""
        return

    def sign_now(self, base: bytes) -> bytes:
        """Sign without an event loop; see ``RequestKey.sign``."""
        try:
            return _raw_signature(self._sign_der(base))
        except Exception as exc:  # neither library documents its errors
            raise RequestKeyError(f"{self.library} could not sign with the request key") from exc


def load_request_key(path: Path, keyid: str) -> LocalRequestKey:
    """Load the request key from its PEM file.

    Raises:
        RequestKeyError: the key cannot be used; the text says what to do.
    """
    try:
        pem = read_file(path, _MAX_FILE_BYTES)
    except KeyFileError as refusal:
        raise RequestKeyError(
            f"the request key {path} {refusal}: name a PEM file that the signer's user may read"
        ) from refusal
    return request_key_from_pem(text_of(pem).encode(), keyid, origin=str(path))


def write_request_key(path: Path) -> None:
    """Generate a request key and write it to a new file (PKCS#8, mode 0600); blocking.

    Raises:
        OSError: the file cannot be written; ``FileExistsError`` if it exists.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    write_new_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def request_key_from_pem(pem: bytes, keyid: str, *, origin: str = "given") -> LocalRequestKey:
    """Load the request key from PEM bytes; blocks that are not private keys are ignored. See ``load_request_key``."""
    key = _parse(_private_block(pem, origin), origin)
    loaded = LocalRequestKey(key, keyid, _aws_ec())
    if not P384.is_signature(loaded.sign_now(SELF_TEST), P384.digest(SELF_TEST), coordinates(key.public_key())):
        raise RequestKeyError(f"the self-test signature of the request key {origin} is not valid: create a new key")
    return loaded


def _private_block(pem: bytes, origin: str) -> bytes:
    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(pem)]
    if any(label == _ENCRYPTED_LABEL or _LEGACY_ENCRYPTION in block for label, block in blocks):
        raise RequestKeyError(
            f"the request key {origin} is encrypted: store it unencrypted (openssl pkcs8 -topk8 -nocrypt) and let the "
            "platform's secret store protect it"
        )
    private = [block for label, block in blocks if label in _PRIVATE_LABELS]
    if not private:
        found = ", ".join(label.decode("ascii") for label, _ in blocks) or "no PEM block"
        raise RequestKeyError(f"the request key {origin} is not SEC 1 or PKCS#8 PEM (found: {found}): {_CREATE_ONE}")
    if len(private) > 1:
        raise RequestKeyError(f"the request key {origin} holds {len(private)} private keys: leave one in the file")
    return private[0]


def _parse(block: bytes, origin: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(block, password=None)
    except UnsupportedAlgorithm as exc:
        raise RequestKeyError(f"the request key {origin} is of an unknown type, not P-384: {_CREATE_ONE}") from exc
    except (TypeError, ValueError) as exc:
        raise RequestKeyError(f"the request key {origin} is damaged: {_CREATE_ONE}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else "not an elliptic-curve key"
        raise RequestKeyError(
            f"the request key {origin} is {kind}; {ALGORITHM} requires P-384 (secp384r1): {_CREATE_ONE}"
        )
    return key


def _aws_ec() -> Any | None:  # noqa: ANN401 -- awscrt has no types
    """Return ``awscrt.crypto.EC``; ``None`` if ``awscrt`` is not installed or older than 0.29."""
    try:
        return getattr(importlib.import_module("awscrt.crypto"), "EC", None)
    except ImportError:
        return None


def _raw_signature(der: bytes) -> bytes:
    """Return a DER signature (RFC 3279 §2.2.3) as ``r || s`` of fixed width (RFC 9421 §3.3.5)."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(P384.scalar_bytes) + s.to_bytes(P384.scalar_bytes)
