"""Web3 Secret Storage V3: published vectors, another implementation, and invalid files."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from eth_account import Account
from eth_utils.crypto import keccak

from signer.adapters.keys import encrypted_json as storage
from signer.adapters.keys.encrypted_json import Kdf, encrypt_keystore, parse_keystore
from signer.adapters.secret_files import KeyFileError
from tests.support.messages import read_vectors

SECRET = bytes(range(1, 33))
ADDRESS = Account.from_key(SECRET).address
PASSWORD = "Pässwort ☂"


@pytest.mark.parametrize("name", ["pbkdf2", "scrypt", "evil_nonce", "odd_iv"])
def test_web3_secret_storage_vector(name: str) -> None:
    """Each published keystore gives its published key, and its memory is known before."""
    vector = read_vectors(f"keystores/{name}.json")
    keystore = parse_keystore(json.dumps(vector["keystore"]).encode())
    assert keystore.address is None
    assert keystore.memory == (128 * (262_144 + 8) if name == "scrypt" else 0)
    assert keystore.decrypt(vector["password"].encode()).hex() == vector["secret"]


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_eth_account_opens_our_keystore(kdf: Kdf) -> None:
    """With a password beyond ASCII."""
    document = json.loads(encrypt_keystore(SECRET, PASSWORD.encode(), kdf=kdf, work=2))
    assert bytes(Account.decrypt(document, PASSWORD)) == SECRET


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_keystore_of_eth_account_opens(kdf: Kdf) -> None:
    """With a password beyond ASCII."""
    document = Account.encrypt(SECRET, PASSWORD, kdf=kdf, iterations=2)
    keystore = parse_keystore(json.dumps(document).encode())
    assert keystore.address == ADDRESS
    assert keystore.decrypt(PASSWORD.encode()) == SECRET


@pytest.mark.parametrize("leading_zeros", [1, 2, 31])
def test_key_without_its_leading_zero_bytes_is_padded(leading_zeros: int) -> None:
    """A private key is a number below n: geth's published ``foo`` keystores hold 31 and 30 bytes."""
    secret = bytes(leading_zeros) + SECRET[leading_zeros:]
    document = json.loads(encrypt_keystore(secret, b"pw", kdf="pbkdf2", work=2))
    crypto = document["crypto"]
    derived = hashlib.pbkdf2_hmac("sha256", b"pw", bytes.fromhex(crypto["kdfparams"]["salt"]), 2)
    cipher = Cipher(algorithms.AES(derived[:16]), modes.CTR(bytes.fromhex(crypto["cipherparams"]["iv"])))
    short = cipher.encryptor().update(secret.lstrip(b"\0"))
    crypto |= {"ciphertext": short.hex(), "mac": keccak(derived[16:32] + short).hex()}
    assert parse_keystore(json.dumps(document).encode()).decrypt(b"pw") == secret


def test_iv_keeps_leading_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Geth does not read an IV of fewer than 32 digits."""
    monkeypatch.setattr("eth_keyfile.keyfile.Random.get_random_bytes", lambda size: bytes(size - 1) + b"\x01")
    text = encrypt_keystore(SECRET, b"pw", work=2)
    assert json.loads(text)["crypto"]["cipherparams"]["iv"] == "0" * 31 + "1"
    assert parse_keystore(text).decrypt(b"pw") == SECRET


def test_usual_strength_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrypt uses n = 262144, PBKDF2 a million iterations."""
    seen: dict[str, int] = {}

    def create(*_: object, kdf: str, iterations: int) -> dict[str, Any]:
        seen[kdf] = iterations
        return {"crypto": {"cipherparams": {"iv": "1"}}}

    monkeypatch.setattr(storage, "create_keyfile_json", create)
    encrypt_keystore(SECRET, b"pw")
    encrypt_keystore(SECRET, b"pw", kdf="pbkdf2")
    assert seen == {"scrypt": 262_144, "pbkdf2": 1_000_000}


def document(kdf: Kdf = "scrypt") -> dict[str, Any]:
    """Make a good keystore to spoil."""
    made: dict[str, Any] = Account.encrypt(SECRET, "pw", kdf=kdf, iterations=2)
    return copy.deepcopy(made)


def test_capital_letters_in_names_are_accepted() -> None:
    """``Crypto`` and ``KDFParams`` are the old spelling of the same names."""
    spoilt = document()
    crypto = spoilt.pop("crypto")
    crypto["KDFParams"] = crypto.pop("kdfparams")
    spoilt["Crypto"] = crypto
    assert parse_keystore(json.dumps(spoilt).encode()).decrypt(b"pw") == SECRET


@pytest.mark.parametrize("spelling", [str.lower, str.upper, lambda text: "0x" + text, lambda text: text])
def test_address_is_parsed_in_any_spelling(spelling: Callable[[str], str]) -> None:
    """With or without 0x, in any case; the result is EIP-55."""
    spelt = document()
    spelt["address"] = spelling(ADDRESS[2:])
    assert parse_keystore(json.dumps(spelt).encode()).address == ADDRESS


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 30_000])
def test_text_that_is_not_a_json_object_is_refused(text: bytes) -> None:
    """Empty, broken, deeply nested, or not an object."""
    with pytest.raises(KeyFileError, match="is not a keystore"):
        parse_keystore(text)


SPOILERS: dict[str, tuple[tuple[str, ...], Any]] = {
    "version-1": (("version",), 1),
    "version-4": (("version",), 4),
    "version-text": (("version",), "3"),
    "no-crypto": (("crypto",), None),
    "crypto-text": (("crypto",), "x"),
    "cipher-cbc": (("crypto", "cipher"), "aes-128-cbc"),
    "ciphertext-empty": (("crypto", "ciphertext"), ""),
    "ciphertext-long": (("crypto", "ciphertext"), "ab" * 33),
    "ciphertext-no-hex": (("crypto", "ciphertext"), "zz" * 32),
    "mac-missing": (("crypto", "mac"), None),
    "mac-short": (("crypto", "mac"), "ab"),
    "iv-empty": (("crypto", "cipherparams", "iv"), ""),
    "iv-long": (("crypto", "cipherparams", "iv"), "ab" * 17),
    "cipherparams-list": (("crypto", "cipherparams"), []),
    "kdf-argon": (("crypto", "kdf"), "argon2id"),
    "kdfparams-none": (("crypto", "kdfparams"), None),
    "salt-none": (("crypto", "kdfparams", "salt"), ""),
    "dklen-short": (("crypto", "kdfparams", "dklen"), 16),
    "n-no-power-of-two": (("crypto", "kdfparams", "n"), 1000),
    "n-one": (("crypto", "kdfparams", "n"), 1),
    "n-true": (("crypto", "kdfparams", "n"), True),
    "n-text": (("crypto", "kdfparams", "n"), "2"),
    "r-zero": (("crypto", "kdfparams", "r"), 0),
    "p-endless": (("crypto", "kdfparams", "p"), 10**9),
    "address-short": (("address",), "0xabc"),
    "address-number": (("address",), 7),
}


@pytest.mark.parametrize(("path", "value"), SPOILERS.values(), ids=SPOILERS.keys())
def test_invalid_field_is_refused_before_password_is_used(path: tuple[str, ...], value: object) -> None:
    """Every field is checked before the key derivation."""
    spoilt = document()
    place = spoilt
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(KeyFileError):
        parse_keystore(json.dumps(spoilt).encode())


@pytest.mark.parametrize(("name", "value"), [("prf", "hmac-sha1"), ("c", 0), ("c", 10**12), ("c", None)])
def test_invalid_pbkdf2_parameter_is_refused(name: str, value: object) -> None:
    """Another function, no iterations, or too many."""
    spoilt = document("pbkdf2")
    spoilt["crypto"]["kdfparams"][name] = value
    with pytest.raises(KeyFileError):
        parse_keystore(json.dumps(spoilt).encode())


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_wrong_password_is_refused_and_not_shown(kdf: Kdf) -> None:
    """The error contains neither the password nor another exception."""
    keystore = parse_keystore(json.dumps(document(kdf)).encode())
    with pytest.raises(KeyFileError, match=r"^the password does not open it$") as refused:
        keystore.decrypt(b"hunter2")
    assert refused.value.__context__ is None
    with pytest.raises(KeyFileError, match="empty"):
        keystore.decrypt(b"")


def test_keystore_repr_shows_no_ciphertext() -> None:
    """``repr`` can be logged."""
    made = document()
    shown = repr(parse_keystore(json.dumps(made).encode()))
    assert made["crypto"]["ciphertext"] not in shown
