"""BIP-32: the published vectors, the other implementation, and the indexes that have no key."""

from __future__ import annotations

import hmac
import pickle
from typing import Any

import pytest
from coincurve import PrivateKey, PublicKey
from hypothesis import given
from hypothesis import strategies as st

from signer.adapters.keys.hd.bip32 import HARDENED, ExtendedKey
from signer.domain.ethereum import SECP256K1_N
from tests.support.messages import read_vectors

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
SEED = bytes(range(64))
CHAINS = [(vector, chain) for vector in read_vectors("hd/bip32.json") for chain in vector["chains"]]


def base58(text: str) -> bytes:
    """Decode Base58Check of 78 bytes, without its checksum."""
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    return number.to_bytes(82)[:78]


def numbers(path: str) -> list[int]:
    """Read a vector's path: ``m/0'/1``."""
    return [int(step.rstrip("'")) + (HARDENED if step.endswith("'") else 0) for step in path.split("/")[1:]]


def secret(key: ExtendedKey | None) -> bytes:
    """The private key of a node."""
    assert key is not None
    return key._scalar.to_bytes(32)


@pytest.mark.parametrize(("vector", "chain"), CHAINS, ids=[f"{v['vector']}-{c['path']}" for v, c in CHAINS])
def test_bip32_test_vector(vector: dict[str, Any], chain: dict[str, str]) -> None:
    """Each chain's private key, chain code and public key are those of the published xprv and xpub."""
    node = ExtendedKey.from_seed(bytes.fromhex(vector["seed"])).descendant(numbers(chain["path"]))
    private, public = base58(chain["xprv"]), base58(chain["xpub"])
    assert node is not None
    assert (node._chain_code, b"\x00" + secret(node)) == (private[13:45], private[45:])
    assert (node._chain_code, node._serialized_point) == (public[13:45], public[45:])


@pytest.mark.parametrize(("vector", "chain"), [each for each in CHAINS if "/" in each[1]["path"]])
def test_bip32_test_vector_as_leaf(vector: dict[str, Any], chain: dict[str, str]) -> None:
    """A leaf is the same key as the node at its path, hardened or not."""
    *above, last = numbers(chain["path"])
    parent = ExtendedKey.from_seed(bytes.fromhex(vector["seed"])).descendant(above)
    assert parent is not None
    public_key = parent.leaf_public_key(last)
    assert parent.leaf_secret(last) == base58(chain["xprv"])[46:]
    assert public_key is not None
    assert PublicKey(public_key).format() == base58(chain["xpub"])[45:]


@given(st.binary(min_size=16, max_size=64), st.integers(0, 2 * HARDENED - 1))
def test_public_and_private_derivation_agree(seed: bytes, number: int) -> None:
    """The public key of every child belongs to its private key."""
    parent = ExtendedKey.from_seed(seed)
    leaf = parent.leaf_secret(number)
    assert leaf is not None
    assert parent.leaf_public_key(number) == PrivateKey(leaf).public_key.format(compressed=False)
    assert secret(parent.child(number)) == leaf


@pytest.mark.parametrize("length", [0, 15, 65, 128])
def test_bip32_seed_length(length: int) -> None:
    """A seed has between 128 and 512 bits."""
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        ExtendedKey.from_seed(bytes(length))


@pytest.mark.parametrize("left", [0, SECP256K1_N, 2**256 - 1])
def test_bip32_master_key_invalid(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If IL is 0, or n or more, the master key is invalid."""
    monkeypatch.setattr(hmac, "digest", lambda *_: left.to_bytes(32) + bytes(32))
    with pytest.raises(ValueError, match=r"[Ss]ecret|scalar"):
        ExtendedKey.from_seed(SEED)


@pytest.mark.parametrize("number", [0, HARDENED])
@pytest.mark.parametrize("left", ["n", "most", "opposite"])
def test_bip32_child_key_invalid(number: int, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IL is n and more, or the child would be 0, there is no child: not as a node, and not as a leaf."""
    parent = ExtendedKey.from_seed(SEED)
    tweak = {"n": SECP256K1_N, "most": 2**256 - 1, "opposite": SECP256K1_N - parent._scalar}[left]
    monkeypatch.setattr(hmac, "digest", lambda *_: tweak.to_bytes(32) + bytes(32))
    assert parent.child(number) is None
    assert parent.leaf_secret(number) is None
    assert parent.leaf_public_key(number) is None
    assert parent.descendant([number, 1, 2]) is None


def test_node_shows_no_secret_and_cannot_be_pickled() -> None:
    """Neither the key nor the chain code is visible."""
    node = ExtendedKey.from_seed(SEED)
    assert repr(node) == "ExtendedKey(***)"
    assert not hasattr(node, "__dict__")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(node)
