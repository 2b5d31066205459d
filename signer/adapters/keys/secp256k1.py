"""libsecp256k1, called through coincurve: recover a public key, and check that the library works.

Recovery is SEC 1 v2 §4.1.6 for the two candidates that Ethereum's ``v`` can name: the x coordinate of ``R`` is ``r``.
The other two (``r + n``) occur once in 2^128 signatures and cannot be written with ``v`` 27 or 28.
"""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

from coincurve import PrivateKey, PublicKey

from signer.adapters.keys.backend import KeyBackendError
from signer.domain.ethereum import Eip191Message, EvmSignature, address_of_public_key

_BINDING: Final = "coincurve._libsecp256k1"
_SCALAR_BYTES: Final = 32

# The published RFC 6979 known answer for secp256k1: key 1, SHA-256("Satoshi Nakamoto"). The public key of key 1 is the
# generator (SEC 2 v2 §2.4.1).
_KNOWN_KEY: Final = (1).to_bytes(_SCALAR_BYTES)
_KNOWN_DIGEST: Final = hashlib.sha256(b"Satoshi Nakamoto").digest()
_KNOWN_R_S: Final = bytes.fromhex(
    "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
    "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5",
)
_KNOWN_Y_PARITY: Final = 1
_GENERATOR: Final = bytes.fromhex(
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
)


def recover_public_key(r_s: bytes, y_parity: int, digest: bytes) -> bytes | None:
    """Return the public key that made a signature (SEC 1 v2 §4.1.6); about 30 µs.

    Args:
        r_s: 64 bytes ``r ‖ s``.
        y_parity: 0 or 1, the parity of the y coordinate of ``R``.
        digest: the 32 bytes that were signed.

    Returns:
        64 bytes ``X ‖ Y``, or ``None`` if no public key fits.
    """
    try:
        public_key = PublicKey.from_signature_and_message(r_s + bytes((y_parity,)), digest, hasher=None)
    except ValueError:
        return None
    return public_key.format(compressed=False)[1:]


class CoincurveVerifier:
    """The port ``SignatureVerifier``."""

    __slots__ = ()

    def signer_of(self, message: Eip191Message, signature: EvmSignature) -> str | None:
        """See ``SignatureVerifier.signer_of``."""
        r_s = signature.r.to_bytes(_SCALAR_BYTES) + signature.s.to_bytes(_SCALAR_BYTES)
        public_key = recover_public_key(r_s, signature.y_parity, message.digest)
        return None if public_key is None else address_of_public_key(public_key)


def require_coincurve() -> None:
    """Check that compiled libsecp256k1 signs and recovers the known answer. Called once at start; under 1 ms.

    Raises:
        KeyBackendError: with what to do.
    """
    spec = importlib.util.find_spec(_BINDING)
    if spec is None or not (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES)):
        raise KeyBackendError("coincurve has no libsecp256k1 on this platform: install its binary wheel")
    try:
        signed = PrivateKey(_KNOWN_KEY).sign_recoverable(_KNOWN_DIGEST, hasher=None)
    except ValueError as exc:
        raise KeyBackendError("libsecp256k1 cannot sign: reinstall coincurve") from exc
    recovered = recover_public_key(_KNOWN_R_S, _KNOWN_Y_PARITY, _KNOWN_DIGEST)
    if signed != _KNOWN_R_S + bytes((_KNOWN_Y_PARITY,)) or recovered != _GENERATOR:
        raise KeyBackendError("libsecp256k1 fails its known-answer test (RFC 6979): reinstall coincurve")
