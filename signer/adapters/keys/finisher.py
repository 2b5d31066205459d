"""Turns a backend's signature into Ethereum's form, and refuses it if it is not the owner's.

Steps:

1. Parse ``r`` and ``s``: 64 bytes ``r ‖ s`` (PKCS #11 v3.1 §6.3.1), 65 bytes ``r ‖ s ‖ v`` (libsecp256k1; ``v`` 0, 1,
   27 or 28), or DER ``Ecdsa-Sig-Value`` (RFC 3279 §2.2.3; AWS).
2. Check that both are in 1 … n-1 (SEC 1 v2 §4.1.4, step 1).
3. Make ``s`` low (EIP-2). This comes before step 4, because ``-s`` belongs to ``-R``.
4. Recover the public key (SEC 1 v2 §4.1.6) with both parities until one is the owner's. A given ``v`` only decides
   which parity is tried first.
5. Refuse a signature that recovers to another key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from eth_hash.auto import keccak

from signer.adapters.keys.secp256k1 import recover_public_key
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import SECP256K1_HALF_N, SECP256K1_N, EvmSignature

_SCALAR_BYTES: Final = 32
_RAW_BYTES: Final = 2 * _SCALAR_BYTES
_RECOVERABLE_BYTES: Final = _RAW_BYTES + 1
_ADDRESS_BYTES: Final = 20
_DER_SEQUENCE: Final = 0x30
_Y_PARITY_FOR_V: Final = {0: 0, 1: 1, 27: 0, 28: 1}
_RETRY_AFTER: Final = 5.0


class SignatureFinisher:
    """Finishes the signatures of one owner.

    The first signature that recovers to the owner's address also proves the public key. It is kept and compared from
    then on, which saves a Keccak-256 for each signature.
    """

    __slots__ = ("_address", "_public_key")

    def __init__(self, address: str) -> None:
        """Create the finisher for the owner's address, ``0x`` + 40 hex digits."""
        self._address = bytes.fromhex(address[2:])
        self._public_key: bytes | None = None

    def finish(self, raw: bytes, digest: bytes) -> EvmSignature:
        """Return the signature in Ethereum's form.

        Args:
            raw: the backend's signature.
            digest: the 32 bytes that were to be signed.

        Raises:
            Unavailable: ``key_signature_invalid``; the detail tells an unknown form from another key's signature.
        """
        readable = False
        for r, given_s, given_parity in _possible_readings(raw):
            # SEC 1 v2 §4.1.4, step 1: r and s are in [1, n-1].
            if not (0 < r < SECP256K1_N and 0 < given_s < SECP256K1_N):
                continue
            readable = True
            s, likely_parity = given_s, given_parity
            # EIP-2: of the two valid values s and n-s, the lower. n-s is the signature of -R, so the parity flips.
            if s > SECP256K1_HALF_N:
                s, likely_parity = SECP256K1_N - s, 1 - given_parity
            r_s = r.to_bytes(_SCALAR_BYTES) + s.to_bytes(_SCALAR_BYTES)
            # SEC 1 v2 §4.1.6: each candidate for R gives a candidate for the public key; only one can be the owner's.
            for y_parity in (likely_parity, 1 - likely_parity):
                public_key = recover_public_key(r_s, y_parity, digest)
                if public_key is not None and self._is_owner(public_key):
                    return EvmSignature(r, s, y_parity)
        raise Unavailable(
            ErrorCode.KEY_SIGNATURE_INVALID,
            "The key backend returned a signature that is not the owner's; nothing was signed."
            if readable
            else "The key backend returned something that is not a secp256k1 signature; nothing was signed.",
            retry_after=_RETRY_AFTER,
            cause="error",
        )

    def _is_owner(self, public_key: bytes) -> bool:
        if self._public_key is not None:
            return public_key == self._public_key
        # Yellow Paper appendix F: an address is the last 20 bytes of the public key's Keccak-256.
        if keccak(public_key)[-_ADDRESS_BYTES:] != self._address:
            return False
        self._public_key = public_key
        return True


def _possible_readings(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield every ``(r, s, likely parity)`` that ``raw`` can mean.

    A DER signature with two short numbers can also be 64 or 65 bytes long; only the owner's address tells which.
    """
    length = len(raw)
    if length == _RAW_BYTES or (length == _RECOVERABLE_BYTES and raw[_RAW_BYTES] in _Y_PARITY_FOR_V):
        likely_parity = _Y_PARITY_FOR_V[raw[_RAW_BYTES]] if length == _RECOVERABLE_BYTES else 0
        yield int.from_bytes(raw[:_SCALAR_BYTES]), int.from_bytes(raw[_SCALAR_BYTES:_RAW_BYTES]), likely_parity
    if length and raw[0] == _DER_SEQUENCE:
        try:
            r, s = decode_dss_signature(raw)  # strict DER (X.690 §10): no trailing bytes, no padded numbers
        except ValueError:
            return
        yield r, s, 0
