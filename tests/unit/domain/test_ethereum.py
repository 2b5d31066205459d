"""Chains, accounts, messages to sign and signatures."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path

import pytest
from eth_account.messages import defunct_hash_message, encode_defunct
from hypothesis import given
from hypothesis import strategies as st

import signer
from signer.domain.challenge import parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge, MalformedRequest
from signer.domain.ethereum import (
    SECP256K1_HALF_N,
    SECP256K1_N,
    AccountId,
    ChainId,
    Eip191Message,
    EvmSignature,
    address_of_public_key,
    checksum_address,
    eip191_message,
    self_test_message,
)
from tests.support.messages import Message

EIP_55_VECTORS = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]
"""The addresses that EIP-55 publishes as its test cases."""

ADDRESS = EIP_55_VECTORS[4]


@pytest.mark.parametrize("address", EIP_55_VECTORS)
def test_eip55_published_addresses(address: str) -> None:
    """Each published address is returned from its own, its lower-case and its upper-case form."""
    assert checksum_address(address) == address
    assert checksum_address(address.lower()) == address
    assert checksum_address("0x" + address[2:].upper()) == address


def test_address_of_public_key() -> None:
    """The address of private key 1, from 64 bytes and from 65."""
    x = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798
    y = 0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8
    point = x.to_bytes(32) + y.to_bytes(32)
    assert address_of_public_key(point) == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    assert address_of_public_key(b"\x04" + point) == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


@pytest.mark.parametrize("reference", [1, 10, 280, 300, 324, 42161, 421614, 10**32 - 1])
def test_caip2_chain_round_trip(reference: int) -> None:
    """A canonical decimal of up to 32 digits is accepted and formatted without changes."""
    assert ChainId.parse(f"eip155:{reference}") == ChainId(reference)
    assert str(ChainId(reference)) == f"eip155:{reference}"


NO_CHAINS = [
    *("", "eip155", "eip155:", "324", "eip155:0", "eip155:0324", "eip155:-1", "eip155:0x144", "eip155:mainnet"),
    *("eip155:324 ", "eip155:324\n", "eip155:٣٢٤", "EIP155:324", f"eip155:1{'0' * 32}"),
]
OTHER_NAMESPACES = ["solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "starknet:SN_GOERLI", "tron:728126428"]


@pytest.mark.parametrize(
    ("text", "code"),
    [(text, ErrorCode.OWNER_ID_MALFORMED) for text in NO_CHAINS]
    + [(text, ErrorCode.CHAIN_NAMESPACE_NOT_SUPPORTED) for text in OTHER_NAMESPACES],
)
def test_caip2_chain_refused(text: str, code: ErrorCode) -> None:
    """Text that is not a CAIP-2 id of an EVM chain is refused, and the error names the field."""
    with pytest.raises(MalformedRequest) as refusal:
        ChainId.parse(text, field="chain")
    assert (refusal.value.code, refusal.value.field) == (code, "chain")


@pytest.mark.parametrize(
    "address",
    [ADDRESS, ADDRESS.lower(), "0x" + ADDRESS[2:].upper(), EIP_55_VECTORS[0], EIP_55_VECTORS[2], "0x" + "1" * 40],
)
def test_caip10_account_gets_checksum(address: str) -> None:
    """An address with its checksum, or in one case, is accepted and formatted with its checksum."""
    account = AccountId.parse(f"eip155:324:{address}")
    assert account == AccountId(ChainId(324), checksum_address(address))
    assert str(account) == f"eip155:324:{checksum_address(address)}"
    assert account.address_bytes == bytes.fromhex(address[2:])


NO_ACCOUNTS = [
    *("", ADDRESS, f"324:{ADDRESS}", f"eip155:324{ADDRESS}", f"eip155:324:{ADDRESS[2:]}"),
    *(f"eip155:324:0X{ADDRESS[2:]}", f"eip155:324:{ADDRESS}0", f"eip155:324:{ADDRESS[:-1]}"),
    *(f"eip155:324:{ADDRESS}\n", f"eip155:324:{ADDRESS}:0", f" eip155:324:{ADDRESS}"),
    f"eip155:324:{ADDRESS.replace('5aAeb', '5aaeb')}",
    "eip155:280:0x43158f45b5EbD7b1179130131DF00393928C2691",  # has a mistyped digit in the card API's guide
]
COSMOS = "cosmos:cosmoshub-3:cosmos1t2uflqwqe0fsj0shcfkrvpukewcw40yjj6hdc0"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *((text, ErrorCode.OWNER_ID_MALFORMED) for text in NO_ACCOUNTS),
        (COSMOS, ErrorCode.CHAIN_NAMESPACE_NOT_SUPPORTED),
    ],
)
def test_caip10_account_refused(text: str, code: ErrorCode) -> None:
    """Text that is not a CAIP-10 account of an EVM chain, or has a wrong checksum, is refused."""
    with pytest.raises(MalformedRequest) as refusal:
        AccountId.parse(text)
    assert (refusal.value.code, refusal.value.field) == (code, "ownerId")


@given(body=st.binary(max_size=300))
def test_eip191_frame_equals_eth_account(body: bytes) -> None:
    """Preimage and digest equal those of eth-account's ``encode_defunct`` for any bytes."""
    message = eip191_message(body)
    theirs = encode_defunct(primitive=body)
    assert message.preimage == b"\x19" + theirs.version + theirs.header + theirs.body
    assert message.digest == bytes(defunct_hash_message(primitive=body))


def test_eip191_message_cannot_be_constructed() -> None:
    """Calling the class, copying and unpickling all raise an error."""
    message = self_test_message()
    with pytest.raises(TypeError):
        Eip191Message()
    with pytest.raises(TypeError):
        copy.copy(message)
    with pytest.raises(TypeError):
        copy.deepcopy(message)
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(message))


def test_eip191_message_cannot_be_changed() -> None:
    """A key backend cannot replace the digest of a message."""
    message = self_test_message()
    before = message.digest
    with pytest.raises(AttributeError):
        message.digest = bytes(32)
    with pytest.raises(AttributeError):
        del message.preimage
    with pytest.raises(AttributeError):
        message.other = 1
    assert message.digest == before


def test_only_domain_uses_eip191_message() -> None:
    """No module outside ``signer.domain`` names ``eip191_message``, which frames any bytes."""
    root = Path(signer.__file__).parent
    naming = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if "eip191_message" in {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
    }
    assert naming == {"domain"}


def test_self_test_message_is_not_a_challenge() -> None:
    """The parser refuses the text of the keys' self-test, so its signature grants nothing."""
    body = self_test_message().preimage.split(b"\n", 1)[1].lstrip(b"0123456789")
    assert body.startswith(b"challenge-signer self-test")
    with pytest.raises(MalformedChallenge) as refusal:
        parse_challenge(body)
    assert refusal.value.code is ErrorCode.CHALLENGE_NOT_SIWE


def test_challenge_is_signed_as_received() -> None:
    """The message to sign contains the exact bytes that were received."""
    message = Message(statement="Exactly these bytes.").encode()
    assert parse_challenge(message).message_to_sign().preimage.endswith(message)


@pytest.mark.parametrize("r", [1, SECP256K1_N - 1])
@pytest.mark.parametrize("s", [1, SECP256K1_HALF_N])
@pytest.mark.parametrize("y_parity", [0, 1])
def test_eip2_signature_round_trip(r: int, s: int, y_parity: int) -> None:
    """At the limits of its ranges a signature has 65 bytes, with ``v`` 27 or 28."""
    signature = EvmSignature(r, s, y_parity)
    raw = signature.to_bytes()
    assert raw == r.to_bytes(32) + s.to_bytes(32) + bytes([27 + y_parity])
    assert EvmSignature.from_bytes(raw) == signature


N, HALF_N = SECP256K1_N, SECP256K1_HALF_N


@pytest.mark.parametrize(
    ("part", "r", "s", "y_parity"),
    [
        *(("r", r, 1, 0) for r in (-1, 0, N)),
        *(("s", 1, s, 0) for s in (0, HALF_N + 1, N - 1)),
        *(("y_parity", 1, 1, y_parity) for y_parity in (-1, 2, 27)),
    ],
)
def test_eip2_signature_refuses_part_out_of_range(part: str, r: int, s: int, y_parity: int) -> None:
    """The error names the part; a high s is out of range."""
    with pytest.raises(ValueError, match=f"^{part} is"):
        EvmSignature(r, s, y_parity)


@pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
def test_signature_refuses_v_other_than_27_and_28(v: int) -> None:
    """0 and 1 are refused too."""
    with pytest.raises(ValueError, match="y_parity"):
        EvmSignature.from_bytes((1).to_bytes(32) + (1).to_bytes(32) + bytes([v]))


@pytest.mark.parametrize("length", [0, 64, 66, 130])
def test_signature_refuses_length_other_than_65(length: int) -> None:
    """Shorter and longer texts are refused."""
    with pytest.raises(ValueError, match="65 bytes"):
        EvmSignature.from_bytes(b"\x1b" * length)


def test_repr_hides_message_and_signature() -> None:
    """A log line that prints them must not contain them."""
    assert repr(self_test_message()) == "Eip191Message(***)"
    assert repr(EvmSignature(12345, 67890, 1)) == "EvmSignature(***)"


TEXTS = {
    "eip155:324": "eip155:324 is a chain without an address: write the account as CAIP-10, for example eip155:324:0x…",
    ADDRESS: f"{ADDRESS} is an address without a chain: write the account as CAIP-10, for example eip155:324:0x…",
    f"324:{ADDRESS}": "324 is not a chain: write it as CAIP-2, for example eip155:324.",
    f"eip155:0324:{ADDRESS}": (
        "eip155:0324 is not an EVM chain: write eip155: and a decimal number without leading zeros."
    ),
    f"solana:x:{ADDRESS}": "Only EVM chains (namespace eip155) are supported, not solana.",
    "eip155:324:0x12": "The address after eip155:324: is not 0x and 40 hex digits.",
    "eip155:324:" + ADDRESS.swapcase().replace("X", "x", 1): (
        f"The EIP-55 checksum of {ADDRESS.swapcase().replace('X', 'x', 1)} is wrong: "
        "at least one character was mistyped."
    ),
}


@pytest.mark.parametrize("text", TEXTS)
def test_error_quotes_chain_or_address_and_names_wanted_form(text: str) -> None:
    """The caller sees what was given and what to write."""
    with pytest.raises(MalformedRequest) as refusal:
        AccountId.parse(text)
    assert refusal.value.detail == TEXTS[text]


@pytest.mark.parametrize(
    "secret",
    [
        "ab" * 32,
        "0x" + "ab" * 32,
        "7b0d1c5e-3c57-4f0e-9a35-5d1f0f2f6c11",
        "cs_" + "a" * 43,
        "Bearer:secret word",
        "admin:hunter2",
    ],
)
def test_error_does_not_quote_what_may_be_a_secret(secret: str) -> None:
    """A private key, an API key or a token in the wrong field is not repeated."""
    for text in (secret, f"{secret}:{ADDRESS}", f"eip155:324:{secret}"):
        with pytest.raises(MalformedRequest) as refusal:
            AccountId.parse(text)
        assert secret not in refusal.value.detail
    with pytest.raises(MalformedRequest) as refusal:
        ChainId.parse(secret)
    assert secret not in refusal.value.detail
