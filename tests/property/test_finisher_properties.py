"""The finisher with any key, digest, signature format, and low or high s."""

from __future__ import annotations

import pytest
from coincurve import PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from signer.adapters.keys.finisher import SignatureFinisher
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import SECP256K1_N, address_of_public_key

secrets = st.integers(1, SECP256K1_N - 1)
digests = st.binary(min_size=32, max_size=32)


def owner(key: PrivateKey) -> str:
    """Return the address of a key."""
    return address_of_public_key(key.public_key.format(compressed=False))


@given(
    secret=secrets,
    digest=digests,
    is_high=st.booleans(),
    tail=st.sampled_from([None, b"", b"\0", b"\1", b"\33", b"\34"]),
)
def test_every_valid_signature_becomes_low_s(secret: int, digest: bytes, is_high: bool, tail: bytes | None) -> None:
    """The result equals the recoverable low-s signature of libsecp256k1, for every format."""
    key = PrivateKey.from_int(secret)
    wanted = key.sign_recoverable(digest, hasher=None)
    r, s = int.from_bytes(wanted[:32]), int.from_bytes(wanted[32:64])
    s = SECP256K1_N - s if is_high else s
    given_form = encode_dss_signature(r, s) if tail is None else r.to_bytes(32) + s.to_bytes(32) + tail
    finished = SignatureFinisher(owner(key)).finish(given_form, digest).to_bytes()
    assert finished == wanted[:64] + bytes([27 + wanted[64]])


@given(secret=secrets, digest=digests, raw=st.one_of(st.binary(max_size=80), st.binary(min_size=64, max_size=65)))
def test_random_bytes_are_refused(secret: int, digest: bytes, raw: bytes) -> None:
    """Random bytes raise ``key_signature_invalid`` and nothing else."""
    with pytest.raises(Unavailable) as refused:
        SignatureFinisher(owner(PrivateKey.from_int(secret))).finish(raw, digest)
    assert refused.value.code is ErrorCode.KEY_SIGNATURE_INVALID
