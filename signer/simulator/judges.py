"""Verification of an owner's signature over a challenge: by ``siwe``, or by recovery alone, for load tests.

Neither uses the signer's code. The challenge is byte for byte the issued one.
"""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import datetime
from typing import Protocol

import siwe  # type: ignore[import-untyped]
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from signer.simulator.challenges import IssuedChallenge

_SIGNATURE_LENGTH = 65
_HEX_SIGNATURE = re.compile(rb"0x[0-9a-fA-F]{130}")
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_RECOVERY_VALUES = (27, 28)


class SignatureInvalid(Exception):
    """The signature is malformed, or not the owner's."""


class SignatureJudge(Protocol):
    """Verifies a signature over a challenge. Slow: call it in a thread."""

    def check(self, challenge: IssuedChallenge, signature: bytes, *, now: datetime) -> None:
        """Check that the signature (65 bytes ``r || s || v``, v 27 or 28) is the owner's.

        Raises:
            SignatureInvalid: it is not.
        """
        ...


class SiweJudge:
    """Parses the message with siwe's ABNF; siwe verifies every field and the signature."""

    def check(self, challenge: IssuedChallenge, signature: bytes, *, now: datetime) -> None:
        """See ``SignatureJudge``."""
        try:
            message = siwe.SiweMessage.from_message(challenge.text)
            if message.prepare_message() != challenge.text:
                raise SignatureInvalid("siwe formats this message differently")
            message.verify(
                f"0x{signature.hex()}",
                domain=challenge.domain,
                uri=challenge.uri,
                nonce=challenge.nonce,
                chain_id=challenge.owner.chain,
                timestamp=now,
                strict=True,
            )
        except (siwe.VerificationError, ValueError) as exc:
            raise SignatureInvalid("siwe rejects the message or its signature") from exc
        if message.address != challenge.owner.address:
            raise SignatureInvalid("the message names another address than the owner")


class FastJudge:
    """Recovers the signer and compares it with the owner; nothing else."""

    def check(self, challenge: IssuedChallenge, signature: bytes, *, now: datetime) -> None:  # noqa: ARG002
        """See ``SignatureJudge``."""
        message = challenge.text.encode()
        digest = keccak(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)  # EIP-191, 0x45
        try:
            vrs = Signature(signature[:64] + bytes([signature[64] - _RECOVERY_VALUES[0]]))
            signer = vrs.recover_public_key_from_msg_hash(digest).to_checksum_address()
        except (BadSignature, ValidationError, ValueError) as exc:
            raise SignatureInvalid("no address can be recovered from the signature") from exc
        if signer != challenge.owner.address:
            raise SignatureInvalid("the signature is another account's")


JUDGE_FOR_NAME: dict[str, type[SiweJudge | FastJudge]] = {"siwe": SiweJudge, "fast": FastJudge}


def decode_signature(text: str, *, require_low_s: bool = True) -> bytes:
    """Parse the ``signature`` field: base64 of ``0x`` and 130 hex digits (ASCII), or base64 of the 65 bytes.

    Returns:
        65 bytes ``r || s || v``, v 27 or 28.

    Raises:
        SignatureInvalid: it is neither, or has another ``v``, or ``s`` is in its upper half (EIP-2).
    """
    try:
        decoded = b64decode(text, validate=True)
    except ValueError as exc:
        raise SignatureInvalid("the signature is not base64") from exc
    signature = bytes.fromhex(decoded[2:].decode()) if _HEX_SIGNATURE.fullmatch(decoded) else decoded
    if len(signature) != _SIGNATURE_LENGTH or signature[64] not in _RECOVERY_VALUES:
        raise SignatureInvalid("a signature is r || s || v in 65 bytes, v 27 or 28")
    if require_low_s and int.from_bytes(signature[32:64]) > _HALF_ORDER:
        raise SignatureInvalid("s is in the upper half of its range (EIP-2)")
    return signature
