"""Curves and points in the forms that tokens use."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.curves import P384, SECP256K1, Curve

CURVES = pytest.mark.parametrize("curve", [SECP256K1, P384], ids=lambda curve: curve.name)

# SEC 2 v2 §2.4.1 and §2.5.1: the generators, which are the public keys of the private key 1.
GENERATORS = {
    SECP256K1: bytes.fromhex(
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
    ),
    P384: bytes.fromhex(
        "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7"
        "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
    ),
}


def test_pkcs11_ec_params_are_the_oid() -> None:
    """1.3.132.0.10 and 1.3.132.0.34, in DER."""
    assert SECP256K1.params.hex() == "06052b8104000a"
    assert P384.params.hex() == "06052b81040022"


@CURVES
def test_pkcs11_ec_params_match_oid_or_name(curve: Curve) -> None:
    """The OID, or the curve's name as a PrintableString, and nothing else."""
    other = P384 if curve is SECP256K1 else SECP256K1
    name = curve.name.encode()
    assert curve.matches(curve.params)
    assert curve.matches(b"\x13" + bytes([len(name)]) + name)
    for params in (b"", other.params, curve.params + b"\x00", curve.params[:-1], name, b"\x30\x03\x02\x01\x01"):
        assert not curve.matches(params)


@CURVES
def test_sec2_generator_is_public_key_of_one(curve: Curve) -> None:
    """The public key follows from the private key."""
    assert curve.public_key_of((1).to_bytes(curve.scalar_bytes)) == GENERATORS[curve]


@CURVES
def test_pkcs11_ec_point_is_parsed_in_every_form(curve: Curve) -> None:
    """DER OCTET STRING, raw, without the 04, and compressed: the same point."""
    point = GENERATORS[curve]
    x, y = point[: curve.scalar_bytes], point[curve.scalar_bytes :]
    raw, compressed = b"\x04" + point, bytes([2 + y[-1] % 2]) + x
    for form in (raw, compressed):
        assert curve.parse_point(form) == point
        assert curve.parse_point(b"\x04" + bytes([len(form)]) + form) == point
    assert curve.parse_point(point) == point
    assert curve.encode_point(point) == b"\x04" + bytes([len(raw)]) + raw


@CURVES
def test_sec1_3_2_2_1_point_off_the_curve_is_refused(curve: Curve) -> None:
    """In each form; and so is a value of another length or with another DER tag."""
    point = GENERATORS[curve]
    off = point[:-1] + bytes([point[-1] ^ 1])
    wrapped = curve.encode_point(point)
    zeros = bytes(len(point))
    for form in (off, b"\x04" + off, curve.encode_point(off), zeros, b"", b"\x00", point[1:], wrapped + b"\x00"):
        with pytest.raises(ValueError, match=r"."):
            curve.parse_point(form)
    for header in (b"\x03\x41", b"\x04\x40"):
        with pytest.raises(ValueError, match="not a DER OCTET STRING"):
            curve.parse_point(header + wrapped[2:])


@CURVES
def test_pem_names_the_curve(curve: Curve) -> None:
    """SubjectPublicKeyInfo (RFC 5480)."""
    loaded = load_pem_public_key(curve.pem(GENERATORS[curve]).encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.curve.name == curve.name
    assert loaded.public_numbers().x == int.from_bytes(GENERATORS[curve][: curve.scalar_bytes])


@CURVES
@pytest.mark.parametrize("secret", [0, 1 << 256, (1 << 384) - 1], ids=["zero", "too wide or too small", "too large"])
def test_invalid_secret_is_refused(curve: Curve, secret: int) -> None:
    """Zero, a number beyond the order, and another width."""
    octets = secret.to_bytes(max(curve.scalar_bytes, (secret.bit_length() + 7) // 8))
    if curve is P384 and secret == 1 << 256:
        octets = octets[1:]
    with pytest.raises(ValueError, match=r"."):
        curve.public_key_of(octets)
