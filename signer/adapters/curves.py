"""Elliptic curves in PKCS #11: ``CKA_EC_PARAMS`` and ``CKA_EC_POINT``, in the forms that tokens use.

* ``CKA_EC_PARAMS`` is the curve's OID in DER, or its name (PKCS #11 v2.40 mechanisms §2.3.3, ``curveName``). Explicit
  curve parameters match no curve.
* ``CKA_EC_POINT`` is, by the standard (§2.3.3), a DER OCTET STRING around the SEC 1 point. Some tokens leave out the
  OCTET STRING (65 bytes for secp256k1), some the leading ``04`` too (64), and a point may be compressed. The length
  decides.
* A point that is not on its curve is refused (SEC 1 v2 §3.2.2.1).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from coincurve import PublicKey
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_DER_OCTET_STRING: Final = 0x04
_DER_PRINTABLE_STRING: Final = 0x13
_DER_HEADER_BYTES: Final = 2
_SEC1_UNCOMPRESSED: Final = b"\x04"


@dataclass(frozen=True, slots=True)
class Curve:
    """A named curve of prime order.

    Attributes:
        name: its name in SEC 2.
        params: its OID in DER, for ``CKA_EC_PARAMS``.
        scalar_bytes: the width of a scalar and of a coordinate.
        hash: the hash of the messages that its keys sign, outside of Ethereum.
    """

    name: str
    params: bytes
    scalar_bytes: int
    hash: SHA256 | SHA384 = field(compare=False)
    _curve: ec.EllipticCurve

    @property
    def signature_bytes(self) -> int:
        """The length of ``r ‖ s``."""
        return 2 * self.scalar_bytes

    def matches(self, params: bytes) -> bool:
        """Return whether ``CKA_EC_PARAMS`` is this curve."""
        return params == self.params or params == _der(_DER_PRINTABLE_STRING, self.name.encode("ascii"))

    def parse_point(self, value: bytes) -> bytes:
        """Parse ``CKA_EC_POINT`` in any of its forms, and return ``X ‖ Y``.

        Raises:
            ValueError: it is not a point of this curve.
        """
        width = self.scalar_bytes
        uncompressed, compressed = 1 + 2 * width, 1 + width
        length = len(value)
        if length in {_DER_HEADER_BYTES + uncompressed, _DER_HEADER_BYTES + compressed}:
            if value[:_DER_HEADER_BYTES] != bytes([_DER_OCTET_STRING, length - _DER_HEADER_BYTES]):
                raise ValueError("the point is not a DER OCTET STRING")
            value = value[_DER_HEADER_BYTES:]
        elif length == 2 * width:
            value = _SEC1_UNCOMPRESSED + value
        elif length not in {uncompressed, compressed}:
            raise ValueError(f"{length} bytes cannot be a point of {self.name}")
        if self is SECP256K1:  # libsecp256k1 needs a tenth of the time, and a token may hold thousands of keys
            parsed = PublicKey(value)  # raises ValueError if the point is not on the curve
            return value[1:] if len(value) == uncompressed else parsed.format(compressed=False)[1:]
        return coordinates(ec.EllipticCurvePublicKey.from_encoded_point(self._curve, value))

    def encode_point(self, public_key: bytes) -> bytes:
        """Return ``X ‖ Y`` as ``CKA_EC_POINT``, in the standard's form."""
        return _der(_DER_OCTET_STRING, _SEC1_UNCOMPRESSED + public_key)

    def pem(self, public_key: bytes) -> str:
        """Return ``X ‖ Y`` as PEM (SubjectPublicKeyInfo, RFC 5480)."""
        return self._key(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def public_key_of(self, secret: bytes) -> bytes:
        """Return ``X ‖ Y`` of a private key (``scalar_bytes`` bytes, big-endian, 1 … n-1).

        Raises:
            ValueError: it is not a private key of this curve; the text does not quote it.
        """
        if len(secret) != self.scalar_bytes:
            raise ValueError(f"a private key of {self.name} is {self.scalar_bytes} bytes")
        return coordinates(ec.derive_private_key(int.from_bytes(secret), self._curve).public_key())

    def digest(self, message: bytes) -> bytes:
        """Return the digest of a message."""
        return hashlib.new(self.hash.name, message).digest()

    def is_signature(self, signature: bytes, digest: bytes, public_key: bytes) -> bool:
        """Return whether ``r ‖ s`` is a signature of a digest by the key ``X ‖ Y``."""
        r, s = int.from_bytes(signature[: self.scalar_bytes]), int.from_bytes(signature[self.scalar_bytes :])
        try:
            self._key(public_key).verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(self.hash)))
        except InvalidSignature:
            return False
        return True

    def _key(self, public_key: bytes) -> ec.EllipticCurvePublicKey:
        return ec.EllipticCurvePublicKey.from_encoded_point(self._curve, _SEC1_UNCOMPRESSED + public_key)


def coordinates(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return ``X ‖ Y``."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _der(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content


SECP256K1: Final = Curve("secp256k1", bytes.fromhex("06052b8104000a"), 32, SHA256(), ec.SECP256K1())
"""1.3.132.0.10 (SEC 2 v2 §2.4.1), for owners' keys."""
P384: Final = Curve("secp384r1", bytes.fromhex("06052b81040022"), 48, SHA384(), ec.SECP384R1())
"""1.3.132.0.34 (SEC 2 v2 §2.5.1), for the request key."""
