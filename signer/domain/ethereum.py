"""Ethereum's chains, accounts, messages to sign and signatures.

* CAIP-2 names a chain (``eip155:324``), CAIP-10 an account on it (``eip155:324:0x…``).
* Every address that this module returns has its EIP-55 checksum.
* EIP-191 (version ``0x45``) frames every message, so that no signature can be used for a transaction.
* EIP-2 signatures are low-s; ``y_parity`` is 0 or 1; ``v`` is ``27 + y_parity``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Never, Self

from eth_hash.auto import keccak

from signer.domain.errors import ErrorCode, MalformedRequest

SECP256K1_N: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
SECP256K1_HALF_N: Final = SECP256K1_N // 2
ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
CHAIN_REFERENCE: Final = re.compile(r"[1-9][0-9]{0,31}", re.ASCII)

_CAIP_2: Final = re.compile(r"(?P<namespace>[-a-z0-9]{3,8}):(?P<reference>[-_a-zA-Z0-9]{1,32})", re.ASCII)
_CAIP_10: Final = "write the account as CAIP-10, for example"
_SAFE_TO_QUOTE: Final = re.compile(r"(?i:eip155)(:[-_a-zA-Z0-9]{0,32})?|[0-9]{1,32}", re.ASCII)
"""Texts that look like a chain, or like a part of one: no key, token, password or signature does."""
_EIP155: Final = "eip155"
_V_OFFSET: Final = 27
_DIGIT_THAT_RAISES: Final = "8"


@lru_cache(maxsize=4096)
def checksum_address(address: str) -> str:
    """Return ``address`` (``0x`` + 40 hex digits of any case) with its EIP-55 checksum."""
    digits = address[2:].lower()
    digest = keccak(digits.encode("ascii")).hex()
    pairs = zip(digits, digest, strict=False)
    return "0x" + "".join(c.upper() if d >= _DIGIT_THAT_RAISES else c for c, d in pairs)


def address_of_public_key(public_key: bytes) -> str:
    """Return the EIP-55 address of an uncompressed public key (64 bytes X‖Y, or 65 with the prefix ``04``)."""
    return checksum_address("0x" + keccak(public_key[-64:])[-20:].hex())


@dataclass(frozen=True, slots=True, order=True)
class ChainId:
    """An EVM chain by its CAIP-2 reference: ``324`` for ``eip155:324``."""

    reference: int

    @classmethod
    def parse(cls, text: str, *, field: str = "chainId") -> Self:
        """Parse a CAIP-2 id of the ``eip155`` namespace, canonical decimal only.

        Raises:
            MalformedRequest: ``chain_namespace_not_supported`` or ``owner_id_malformed``.
        """
        match = _CAIP_2.fullmatch(text)
        if match is None:
            given = text if _SAFE_TO_QUOTE.fullmatch(text) else "The text"
            raise _malformed_account(field, f"{given} is not a chain: write it as CAIP-2, for example eip155:324.")
        if match["namespace"] != _EIP155:
            detail = f"Only EVM chains (namespace eip155) are supported, not {match['namespace']}."
            raise MalformedRequest(ErrorCode.CHAIN_NAMESPACE_NOT_SUPPORTED, detail, field=field)
        if CHAIN_REFERENCE.fullmatch(match["reference"]) is None:
            detail = f"{text} is not an EVM chain: write eip155: and a decimal number without leading zeros."
            raise _malformed_account(field, detail)
        return cls(int(match["reference"]))

    def __str__(self) -> str:
        return f"{_EIP155}:{self.reference}"


@dataclass(frozen=True, slots=True)
class AccountId:
    """An account on an EVM chain (CAIP-10); ``address`` always has its EIP-55 checksum."""

    chain: ChainId
    address: str

    @classmethod
    def parse(cls, text: str, *, field: str = "ownerId") -> Self:
        """Parse ``eip155:<chain>:0x<40 hex>``.

        An address in mixed case must have the right EIP-55 checksum: a wrong one means that a digit was mistyped. An
        address in one case has no checksum; it is added.

        Raises:
            MalformedRequest: ``owner_id_malformed`` or ``chain_namespace_not_supported``.
        """
        chain_text, separator, address = text.rpartition(":")
        if text.startswith(f"{_EIP155}:") and _CAIP_2.fullmatch(text):
            raise _malformed_account(field, f"{text} is a chain without an address: {_CAIP_10} {text}:0x…")
        if not separator:
            what = f"{text} is an address without a chain" if ADDRESS.fullmatch(text) else "This is not an account"
            raise _malformed_account(field, f"{what}: {_CAIP_10} eip155:324:0x…")
        chain = ChainId.parse(chain_text, field=field)
        if ADDRESS.fullmatch(address) is None:
            raise _malformed_account(field, f"The address after {chain}: is not 0x and 40 hex digits.")
        checksummed = checksum_address(address)
        digits = address[2:]
        if address != checksummed and digits not in {digits.lower(), digits.upper()}:
            detail = f"The EIP-55 checksum of {address} is wrong: at least one character was mistyped."
            raise _malformed_account(field, detail)
        return cls(chain, checksummed)

    @property
    def address_bytes(self) -> bytes:
        """The 20 bytes of the address."""
        return bytes.fromhex(self.address[2:])

    def __str__(self) -> str:
        return f"{_EIP155}:{self.chain.reference}:{self.address}"  # without str(self.chain): faster


def _malformed_account(field: str, detail: str) -> MalformedRequest:
    return MalformedRequest(ErrorCode.OWNER_ID_MALFORMED, detail, field=field)


class Eip191Message:
    r"""What a key signs: an EIP-191 version ``0x45`` preimage and its Keccak-256 digest.

    Only the domain can create one, in ``Challenge.message_to_sign`` and ``self_test_message``, and none can be changed.
    So no caller can make a key sign a digest or a text of the caller's choice.

    Attributes:
        preimage: ``0x19 "Ethereum Signed Message:\n" <length> <bytes>``.
        digest: ``keccak256(preimage)``, 32 bytes.
    """

    __slots__ = ("digest", "preimage")

    preimage: bytes
    digest: bytes

    def __new__(cls) -> Self:
        """Raise ``TypeError``."""
        raise TypeError("Only Challenge.message_to_sign() and self_test_message() create an Eip191Message.")

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("An Eip191Message cannot be changed.")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError("An Eip191Message cannot be changed.")

    def __repr__(self) -> str:
        return "Eip191Message(***)"


def eip191_message(body: bytes) -> Eip191Message:
    """Frame ``body`` for signing. Only ``signer.domain`` may call this; a test checks it."""
    message: Eip191Message = object.__new__(Eip191Message)
    preimage = b"\x19Ethereum Signed Message:\n%d%s" % (len(body), body)
    object.__setattr__(message, "preimage", preimage)
    object.__setattr__(message, "digest", keccak(preimage))
    return message


def self_test_message() -> Eip191Message:
    """Return the fixed text that keys sign in their self-test; it is not a valid challenge."""
    return eip191_message(b"challenge-signer self-test: this text proves that a key works and grants nothing")


@dataclass(frozen=True, slots=True, repr=False)
class EvmSignature:
    """A recoverable secp256k1 signature in the form that Ethereum accepts.

    Attributes:
        r: 1 … n-1.
        s: 1 … n/2, low-s after EIP-2.
        y_parity: 0 or 1.

    Raises:
        ValueError: a part is out of range.
    """

    r: int
    s: int
    y_parity: int

    def __post_init__(self) -> None:
        if not 0 < self.r < SECP256K1_N:
            raise ValueError("r is outside 1 … n-1")
        if not 0 < self.s <= SECP256K1_HALF_N:
            raise ValueError("s is outside 1 … n/2 (EIP-2)")
        if self.y_parity not in {0, 1}:
            raise ValueError("y_parity is neither 0 nor 1")

    @classmethod
    def from_bytes(cls, signature: bytes) -> Self:
        """Parse 65 bytes ``r ‖ s ‖ v`` with ``v`` 27 or 28; raise ``ValueError``."""
        if len(signature) != 65:  # noqa: PLR2004 - r, s and v
            raise ValueError("a signature is 65 bytes r ‖ s ‖ v")
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])
        return cls(r, s, signature[64] - _V_OFFSET)

    def to_bytes(self) -> bytes:
        """Return 65 bytes ``r ‖ s ‖ v`` with ``v`` 27 or 28."""
        return self.r.to_bytes(32) + self.s.to_bytes(32) + bytes([_V_OFFSET + self.y_parity])

    def __repr__(self) -> str:
        return "EvmSignature(***)"
