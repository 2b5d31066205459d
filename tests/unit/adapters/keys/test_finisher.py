"""The finisher against known answers: forms, padding, high-s of both parities, ranges, owners."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from coincurve import PrivateKey, PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from signer.adapters.keys.finisher import SignatureFinisher
from signer.domain.challenge import decode_challenge
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import (
    SECP256K1_HALF_N,
    SECP256K1_N,
    EvmSignature,
    address_of_public_key,
    self_test_message,
)
from tests.support.messages import golden_vector

N = SECP256K1_N
DIGEST = self_test_message().digest
Z = int.from_bytes(DIGEST)
SECRET = 0xC0FFEE
X_OF_HALF_G = 0x3B78CE563F89A0ED9414F5AA28AD0D96D6795F9C63
"""The x coordinate of the point G/2 (the base point times 1/2 mod n). It has only 21 bytes."""


def address_of(secret: int) -> str:
    """Return the owner of a key."""
    return address_of_public_key(PrivateKey.from_int(secret).public_key.format(compressed=False))


def signature_with_k(secret: int, k: int) -> EvmSignature:
    """Sign as SEC 1 §4.1.3 says, with a secret number k of the test's choice, low-s: an oracle in plain numbers."""
    x, y = PublicKey.from_secret(k.to_bytes(32)).point()
    s = pow(k, -1, N) * (Z + x * secret) % N
    return EvmSignature(x, s, y % 2) if s <= SECP256K1_HALF_N else EvmSignature(x, N - s, 1 - y % 2)


def secret_for(k: int, s: int) -> int:
    """Return the key for which ``k`` gives this ``s``."""
    x, _ = PublicKey.from_secret(k.to_bytes(32)).point()
    return (s * k - Z) * pow(x, -1, N) % N


def raw(r: int, s: int) -> bytes:
    """Return 64 bytes."""
    return r.to_bytes(32) + s.to_bytes(32)


def same(one: EvmSignature, other: EvmSignature) -> bool:
    """Compare the bytes: signatures have no ``==``, and ``repr`` shows nothing."""
    return one.to_bytes() == other.to_bytes()


def refusal(given: bytes, secret: int = SECRET) -> Unavailable:
    """Return the error of a signature that must be refused."""
    with pytest.raises(Unavailable) as refused:
        SignatureFinisher(address_of(secret)).finish(given, DIGEST)
    assert (refused.value.code, refused.value.cause) == (ErrorCode.KEY_SIGNATURE_INVALID, "error")
    return refused.value


def of_parity(parity: int) -> EvmSignature:
    """Return a low-s signature of this parity."""
    signatures = (signature_with_k(SECRET, nonce) for nonce in range(2, 100))
    return next(signature for signature in signatures if signature.y_parity == parity)


def test_golden_signature_finishes_to_itself() -> None:
    """A real signature gives the same result in every form, high-s or low-s."""
    golden = golden_vector()
    published = EvmSignature.from_bytes(bytes.fromhex(base64.b64decode(golden.signature)[2:].decode()))
    digest = decode_challenge(golden.challenge).message_to_sign().digest
    finisher = SignatureFinisher(golden.recovers_to)
    r, s = published.r, published.s
    for given in (
        published.to_bytes(),
        raw(r, s),
        raw(r, N - s),
        encode_dss_signature(r, s),
        encode_dss_signature(r, N - s),
    ):
        assert same(finisher.finish(given, digest), published)


@pytest.mark.parametrize("parity", [0, 1])
def test_eip2_high_s_flips_the_parity(parity: int) -> None:
    """EIP-2: n-s becomes s, and the parity is that of the low signature, in raw form without and with every ``v``."""
    wanted = of_parity(parity)
    high = raw(wanted.r, N - wanted.s)
    for tail in (b"", b"\x00", b"\x01", b"\x1b", b"\x1c"):
        assert same(SignatureFinisher(address_of(SECRET)).finish(high + tail, DIGEST), wanted)


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("v", [0, 1, 27, 28])
def test_wrong_v_is_corrected(parity: int, v: int) -> None:
    """A wrong ``v`` does no harm: the owner decides."""
    wanted = of_parity(parity)
    given = raw(wanted.r, wanted.s) + bytes([v])
    assert same(SignatureFinisher(address_of(SECRET)).finish(given, DIGEST), wanted)


def test_eip2_boundary_of_s() -> None:
    """The value n/2 is low and stays; n/2 + 1 is high and becomes n/2 (n is odd)."""
    k = 7
    secret = secret_for(k, SECP256K1_HALF_N)
    r, _ = PublicKey.from_secret(k.to_bytes(32)).point()
    finisher = SignatureFinisher(address_of(secret))
    assert finisher.finish(raw(r, SECP256K1_HALF_N), DIGEST).s == SECP256K1_HALF_N
    assert finisher.finish(raw(r, SECP256K1_HALF_N + 1), DIGEST).s == SECP256K1_HALF_N


def test_short_r_is_padded() -> None:
    """An ``r`` of 21 bytes is padded to 32 (issue 225 of Quorum Key Manager)."""
    wanted = signature_with_k(SECRET, pow(2, -1, N))
    assert wanted.r == X_OF_HALF_G
    finished = SignatureFinisher(address_of(SECRET)).finish(encode_dss_signature(wanted.r, wanted.s), DIGEST)
    assert same(finished, wanted)
    assert finished.to_bytes()[:11] == bytes(11)


def test_short_s_is_padded() -> None:
    """An ``s`` of one byte is padded to 32."""
    secret = secret_for(k=5, s=1)
    r, _ = PublicKey.from_secret((5).to_bytes(32)).point()
    finished = SignatureFinisher(address_of(secret)).finish(encode_dss_signature(r, 1), DIGEST)
    assert finished.to_bytes()[32:64] == bytes(31) + b"\x01"


@pytest.mark.parametrize("length", [64, 65])
def test_der_signature_of_64_or_65_bytes_is_parsed(length: int) -> None:
    """A DER signature with short numbers can be as long as a raw one; the owner's address tells which it is."""
    k = next(k for k in range(2, 100) if PublicKey.from_secret(k.to_bytes(32)).point()[0] >> 255 == 0)
    s = 1 << (8 * (length - 6 - 32) - 2)  # DER has 6 bytes more than its numbers, and r has 32
    secret = secret_for(k, s)
    r, _ = PublicKey.from_secret(k.to_bytes(32)).point()
    der = encode_dss_signature(r, s)
    assert len(der) == length
    assert SignatureFinisher(address_of(secret)).finish(der, DIGEST).s == s


GOOD = signature_with_k(SECRET, 3)
OUT_OF_RANGE = [pair for bad in (0, N, N + 1, 2**256 - 1) for pair in ((bad, GOOD.s), (GOOD.r, bad))]


@pytest.mark.parametrize("pair", OUT_OF_RANGE, ids=lambda pair: f"{pair[0]:x}"[:6] + "-" + f"{pair[1]:x}"[:6])
@pytest.mark.parametrize("form", [raw, encode_dss_signature], ids=["raw", "der"])
def test_sec1_4_1_4_range(pair: tuple[int, int], form: Callable[[int, int], bytes]) -> None:
    """Numbers outside 1 … n-1 are not a signature."""
    assert "not a secp256k1 signature" in refusal(form(*pair)).detail


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\x30",
        bytes(63),
        bytes(66),
        b"0x" + b"ab" * 65,
        raw(1, 1) + b"\x02",
        raw(1, 1) + b"\x1a",
        raw(1, 1) + b"\x25",
        encode_dss_signature(1, 1) + b"\x00",
        encode_dss_signature(1, 1)[:-1],
        bytes.fromhex("300702020001020101"),
        bytes.fromhex("3006020181020101"),
        bytes.fromhex("308106020101020101"),
    ],
    ids=lambda given: given.hex()[:20] or "empty",
)
def test_unknown_form_is_refused(given: bytes) -> None:
    """Other lengths, another ``v``, and DER that is not strict (X.690 §10, §8.3.2)."""
    assert "not a secp256k1 signature" in refusal(given).detail


def test_signature_of_another_key_is_refused() -> None:
    """A valid signature that recovers to another address is not the owner's."""
    foreign = signature_with_k(SECRET + 1, 3)
    assert "not the owner's" in refusal(foreign.to_bytes()).detail


def test_signature_of_another_digest_is_refused() -> None:
    """A signature of other bytes (moto, an AWS fake, signs sha256(digest)) recovers to another key."""
    given = PrivateKey.from_int(SECRET).sign_recoverable(DIGEST)  # hashes once more
    assert "not the owner's" in refusal(given).detail


def test_another_key_is_refused_after_a_good_signature() -> None:
    """The refused signature changes nothing: a good one is still accepted."""
    finisher = SignatureFinisher(address_of(SECRET))
    good = signature_with_k(SECRET, 3)
    finisher.finish(good.to_bytes(), DIGEST)
    with pytest.raises(Unavailable):
        finisher.finish(signature_with_k(SECRET + 1, 3).to_bytes(), DIGEST)
    assert same(finisher.finish(good.to_bytes(), DIGEST), good)


def test_refusal_shows_no_signature() -> None:
    """The error contains neither r nor s."""
    foreign = signature_with_k(SECRET + 1, 3)
    error = refusal(foreign.to_bytes())
    assert f"{foreign.r:x}" not in str(error)
    assert f"{foreign.s:x}" not in str(error)
