"""Elliptic curves as PKCS #11 writes them: ``CKA_EC_PARAMS`` and ``CKA_EC_POINT``, and the ways in which tokens differ.

* ``CKA_EC_PARAMS`` names a curve by its OID (DER), or by its name (PKCS #11 v2.40 mechanisms §2.3.3, ``curveName``).
  A curve that is spelled out in numbers is taken for none that we know.
* ``CKA_EC_POINT`` is a DER OCTET STRING around the SEC 1 point by the standard (§2.3.3); some tokens leave the wrapping
  out (65 bytes for secp256k1), some the leading ``04`` too (64), and a point may be compressed. The lengths tell which.
* A point that is not on its curve is refused (SEC 1 v2 §3.2.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from coincurve import PublicKey
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_DER_OID: Final = 0x06
_DER_OCTET_STRING: Final = 0x04
_DER_PRINTABLE_STRING: Final = 0x13
_DER_HEADER_BYTES: Final = 2
_SEC1_UNCOMPRESSED: Final = b"\x04"


@dataclass(frozen=True, slots=True)
class Curve:
    """A named curve of prime order.

    Attributes:
        name: as SEC 2 spells it.
        oid: the contents of its DER object identifier.
        scalar_bytes: the width of a scalar and of a coordinate.
    """

    name: str
    oid: bytes
    scalar_bytes: int
    _curve: ec.EllipticCurve
    _names: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = self.name.encode("ascii")
        names = frozenset({self.params, bytes([_DER_PRINTABLE_STRING, len(name)]) + name})
        object.__setattr__(self, "_names", names)

    @property
    def signature_bytes(self) -> int:
        """The length of ``r ‖ s``."""
        return 2 * self.scalar_bytes

    @property
    def params(self) -> bytes:
        """``CKA_EC_PARAMS``: the OID."""
        return bytes([_DER_OID, len(self.oid)]) + self.oid

    def is_named_by(self, params: bytes) -> bool:
        """Tell whether ``CKA_EC_PARAMS`` mean this curve."""
        return params in self._names

    def read_point(self, value: bytes) -> bytes:
        """Read ``CKA_EC_POINT`` in any of its forms.

        Returns:
            ``X ‖ Y``.

        Raises:
            ValueError: it is no point of this curve.
        """
        width = self.scalar_bytes
        uncompressed, compressed = 1 + 2 * width, 1 + width
        length = len(value)
        if length in {_DER_HEADER_BYTES + uncompressed, _DER_HEADER_BYTES + compressed}:
            if value[:_DER_HEADER_BYTES] != bytes([_DER_OCTET_STRING, length - _DER_HEADER_BYTES]):
                raise ValueError("the point is no DER OCTET STRING")
            value = value[_DER_HEADER_BYTES:]
        elif length == 2 * width:
            value = _SEC1_UNCOMPRESSED + value
        elif length not in {uncompressed, compressed}:
            raise ValueError(f"{length} bytes are no point of {self.name}")
        if self is SECP256K1:  # libsecp256k1 takes a tenth of the time, and a token may hold thousands
            parsed = PublicKey(value)  # which refuses what is not on the curve
            return value[1:] if len(value) == uncompressed else parsed.format(compressed=False)[1:]
        point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, value)
        return point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]

    def write_point(self, public_key: bytes) -> bytes:
        """Write ``X ‖ Y`` as ``CKA_EC_POINT``, by the standard."""
        point = _SEC1_UNCOMPRESSED + public_key
        return bytes([_DER_OCTET_STRING, len(point)]) + point

    def pem(self, public_key: bytes) -> str:
        """Write ``X ‖ Y`` as PEM (SubjectPublicKeyInfo, RFC 5480)."""
        point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, _SEC1_UNCOMPRESSED + public_key)
        return point.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def public_key_of(self, secret: bytes) -> bytes:
        """Give ``X ‖ Y`` of a private key.

        Args:
            secret: ``scalar_bytes`` bytes, big-endian, 1 … n-1.

        Raises:
            ValueError: it is none; the text does not quote it.
        """
        if len(secret) != self.scalar_bytes:
            raise ValueError(f"a private key of {self.name} is {self.scalar_bytes} bytes")
        key = ec.derive_private_key(int.from_bytes(secret), self._curve)
        return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


SECP256K1: Final = Curve("secp256k1", bytes.fromhex("2b8104000a"), 32, ec.SECP256K1())
"""1.3.132.0.10 (SEC 2 v2 §2.4.1): owners' keys."""
P384: Final = Curve("secp384r1", bytes.fromhex("2b81040022"), 48, ec.SECP384R1())
"""1.3.132.0.34 (SEC 2 v2 §2.5.1): the key that signs requests to the card API."""
