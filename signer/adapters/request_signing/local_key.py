"""The key that signs our requests to the card API: ECDSA on P-384, ``ecdsa-p384-sha384`` of RFC 9421 §3.3.5.

Here is what any such key is, and the one in a file; ``pkcs11_request_key`` has the one in a token. Rules:

* ``sign`` is awaited, for a token is not waited for by the event loop. A key in this process's memory signs at once, on
  the caller's thread: a hop to another costs more than it gives.
* The key comes from one PEM file, SEC 1 (``openssl ecparam -name secp384r1 -genkey -noout``) or PKCS#8, not encrypted.
  Who may read the file is the machine's affair: Kubernetes mounts secrets as symlinks that a group may read.
* A signature is ``r || s``, 48 bytes each, never DER.
* AWS-LC (package ``awscrt``) signs where it is installed, for it needs less than half of OpenSSL's time; `cryptography`
  signs elsewhere. Which of the two it is, is decided once, when the key is loaded.
* A key that has been loaded works: it has signed a fixed text, and `cryptography` has verified that signature.
* No error, ``repr`` or attribute shows the private key; ``public_pem`` is what is registered with the card API.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from signer.adapters.keys.secret_files import write_new_file

ALGORITHM: Final = "ecdsa-p384-sha384"
"""The name in RFC 9421's registry (§6.2.2), and the only one that the card API accepts."""
SCALAR_BYTES: Final = 48
"""The width of ``r`` and of ``s``: the bytes of P-384's order."""
SIGNATURE_BYTES: Final = 2 * SCALAR_BYTES

_MAX_FILE_BYTES: Final = 16_384
_PEM_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_PRIVATE_LABELS: Final = {b"PRIVATE KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY", b"DSA PRIVATE KEY"}
_ENCRYPTED_LABEL: Final = b"ENCRYPTED PRIVATE KEY"
_LEGACY_ENCRYPTION: Final = b"Proc-Type: 4,ENCRYPTED"  # RFC 1421 §4.6.1.1
_HOW_TO_MAKE_ONE: Final = "make one with: signer request-key new <file>"
_SELF_TEST: Final = b"signer: the request-signing key works"


class RequestKeyError(Exception):
    """The request-signing key cannot be used; the text says what to do about it."""


class RequestKeyUnreadable(RequestKeyError):
    """The file is not there, may not be read, or cannot be a key."""


class RequestKeyNotPem(RequestKeyError):
    """The file holds no PEM private key, or more than one."""


class RequestKeyEncrypted(RequestKeyError):
    """The key is protected by a passphrase, which the signer has no setting for."""


class RequestKeyWrongCurve(RequestKeyError):
    """The key is of another kind than ECDSA on P-384."""


class RequestKeyFailed(RequestKeyError):
    """The library that signs failed, or gave a signature that does not verify."""


class RequestKeyUnavailable(RequestKeyError):
    """The key does not sign now, and may later. The text is for the operator.

    Attributes:
        brief: the same for a caller, whom paths and serial numbers do not concern.
        retry_after: seconds after which it makes sense to ask again.
    """

    def __init__(self, reason: str, brief: str, retry_after: float) -> None:
        super().__init__(reason)
        self.brief = brief
        self.retry_after = retry_after


class RequestSigningKey(Protocol):
    """What signs a signature base, wherever the key lives."""

    @property
    def keyid(self) -> str:
        """The id that the card API gave when the public key was registered."""

    async def sign(self, base: bytes) -> bytes:
        """Sign a signature base (RFC 9421 §2.5).

        Args:
            base: The base's ASCII bytes, not hashed.

        Returns:
            96 bytes: ``r || s``, 48 bytes each (RFC 9421 §3.3.5).

        Raises:
            RequestKeyUnavailable: The key does not sign now, and may later.
            RequestKeyError: The key could not sign.
        """

    def unavailable_for(self) -> float | None:
        """Say for how many seconds at least the key is known not to sign; ``None`` where nothing is known of that."""


class LocalRequestKey(ABC):
    """A request-signing key in this process's memory; which library signs with it is the subclass's affair.

    Attributes:
        keyid: The id under which the card API knows the public key.
        public_pem: The public key as PEM (SubjectPublicKeyInfo), to be registered with the card API.
        library: What signs, for the log.
    """

    __slots__ = ("keyid", "public_pem")

    library: str

    def __init__(self, key: ec.EllipticCurvePrivateKey, keyid: str) -> None:
        self.keyid = keyid
        self.public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(keyid={self.keyid!r})"

    async def sign(self, base: bytes) -> bytes:
        """See ``RequestSigningKey.sign``; nothing is waited for."""
        return self.sign_at_once(base)

    def unavailable_for(self) -> None:
        """See ``RequestSigningKey.unavailable_for``: never."""
        return

    def sign_at_once(self, base: bytes) -> bytes:
        """Do what ``sign`` does, for whoever has no event loop."""
        try:
            return _raw_signature(self._der_signature(base))
        except Exception as exc:  # neither library says which errors it raises
            raise RequestKeyFailed(f"{self.library} could not sign with the request-signing key") from exc

    @abstractmethod
    def _der_signature(self, base: bytes) -> bytes:
        """Sign ``base`` (ECDSA over SHA-384); DER, as both libraries give it."""


class OpenSslRequestKey(LocalRequestKey):
    """Signs with `cryptography`, which brings its own OpenSSL."""

    __slots__ = ("_key", "_scheme")

    library = "OpenSSL"

    def __init__(self, key: ec.EllipticCurvePrivateKey, keyid: str) -> None:
        super().__init__(key, keyid)
        self._key = key
        self._scheme = ec.ECDSA(SHA384())

    def _der_signature(self, base: bytes) -> bytes:
        return self._key.sign(base, self._scheme)


class AwsLcRequestKey(LocalRequestKey):
    """Signs with AWS-LC through `awscrt`."""

    __slots__ = ("_key",)

    library = "AWS-LC"

    def __init__(self, key: ec.EllipticCurvePrivateKey, keyid: str, aws_ec: Any) -> None:  # noqa: ANN401 -- untyped
        super().__init__(key, keyid)
        sec1 = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        self._key = aws_ec.new_key_from_der_data(sec1)

    def _der_signature(self, base: bytes) -> bytes:
        der: bytes = self._key.sign(hashlib.sha384(base).digest())
        return der


def load_request_key(path: Path, keyid: str) -> LocalRequestKey:
    """Load the request-signing key from its file; symlinks are followed.

    Args:
        path: The PEM file.
        keyid: The id that the card API gave for its public key.

    Raises:
        RequestKeyError: With what to do about it.
    """
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise RequestKeyUnreadable(
            f"the request-signing key {path} cannot be read ({exc.strerror}): "
            "name a file that the signer's user may read"
        ) from exc
    if len(pem) > _MAX_FILE_BYTES:
        raise RequestKeyUnreadable(f"the request-signing key {path} is over {_MAX_FILE_BYTES} bytes: it is not a key")
    return request_key_from_pem(pem, keyid, origin=str(path))


def write_request_key(path: Path) -> None:
    """Make a request-signing key in a file of its own (PKCS#8, mode 0600), in no other file's place; blocking.

    Raises:
        OSError: it cannot be written; ``FileExistsError`` where it is there already.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    write_new_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def request_key_from_pem(pem: bytes, keyid: str, *, origin: str = "given") -> LocalRequestKey:
    """Make a request-signing key of PEM bytes (SEC 1 or PKCS#8; other blocks beside the key are passed over).

    Args:
        pem: The file's bytes.
        keyid: The id that the card API gave for its public key.
        origin: Where the bytes came from, for the errors.

    Raises:
        RequestKeyError: With what to do about it.
    """
    key = _parse(_private_block(pem, origin), origin)
    aws_ec = _aws_ec()
    try:
        loaded = OpenSslRequestKey(key, keyid) if aws_ec is None else AwsLcRequestKey(key, keyid, aws_ec)
        signature = loaded.sign_at_once(_SELF_TEST)
        r, s = (int.from_bytes(half, "big") for half in (signature[:SCALAR_BYTES], signature[SCALAR_BYTES:]))
        key.public_key().verify(encode_dss_signature(r, s), _SELF_TEST, ec.ECDSA(SHA384()))
    except (InvalidSignature, RuntimeError, ValueError) as exc:
        raise RequestKeyFailed(
            f"the request-signing key {origin} does not work: its trial signature does not verify; make a new key"
        ) from exc
    return loaded


def _private_block(pem: bytes, origin: str) -> bytes:
    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(pem)]
    if any(label == _ENCRYPTED_LABEL or _LEGACY_ENCRYPTION in block for label, block in blocks):
        raise RequestKeyEncrypted(
            f"the request-signing key {origin} is encrypted: store it unencrypted "
            "(openssl pkcs8 -topk8 -nocrypt) and let the platform's secret store protect it"
        )
    private = [block for label, block in blocks if label in _PRIVATE_LABELS]
    if not private:
        found = ", ".join(label.decode("ascii") for label, _ in blocks) or "no PEM block at all"
        raise RequestKeyNotPem(
            f"the request-signing key {origin} is not a SEC 1 or PKCS#8 PEM (found: {found}): {_HOW_TO_MAKE_ONE}"
        )
    if len(private) > 1:
        raise RequestKeyNotPem(f"the request-signing key {origin} holds {len(private)} private keys: leave one")
    return private[0]


def _parse(block: bytes, origin: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(block, password=None)
    except UnsupportedAlgorithm as exc:
        raise RequestKeyWrongCurve(
            f"the request-signing key {origin} is of an unknown kind, P-384 is wanted: {_HOW_TO_MAKE_ONE}"
        ) from exc
    except (TypeError, ValueError) as exc:
        raise RequestKeyNotPem(f"the request-signing key {origin} is damaged: {_HOW_TO_MAKE_ONE}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else "not an elliptic-curve key"
        raise RequestKeyWrongCurve(
            f"the request-signing key {origin} is {kind}; {ALGORITHM} wants P-384 (secp384r1): {_HOW_TO_MAKE_ONE}"
        )
    return key


def _aws_ec() -> Any | None:  # noqa: ANN401 -- awscrt has no types
    """AWS-LC's elliptic curves, or ``None`` where ``awscrt`` is not installed or is older than 0.29."""
    try:
        return getattr(importlib.import_module("awscrt.crypto"), "EC", None)
    except ImportError:
        return None


def _raw_signature(der: bytes) -> bytes:
    """Fixed-width ``r || s`` (RFC 9421 §3.3.5) of a DER signature (RFC 3279 §2.2.3): the one place that pads."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(SCALAR_BYTES, "big") + s.to_bytes(SCALAR_BYTES, "big")
