"""Web3 Secret Storage, version 3: one private key, encrypted under a password, as a JSON file.

The format is that of https://ethereum.org/developers/docs/data-structures-and-encoding/web3-secret-storage/, and
``eth_keyfile`` does the cryptography. What stands here is what it leaves open:

* The file says how much memory opening it takes, and that is known before anybody begins.
* Every field is checked before the password is used, so that what fails then is the password.
* The password is bytes: ``eth_keyfile`` would encode a text as Latin-1 for scrypt, where others write UTF-8.
* A refusal is raised where no secret is a local variable, and carries no other exception along.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from signer.domain.ethereum import ADDRESS, checksum_address

Kdf = Literal["scrypt", "pbkdf2"]
WORK_FOR_KDF: Final[dict[Kdf, int]] = {"scrypt": 262_144, "pbkdf2": 1_000_000}
"""The usual strength: scrypt's n, half a second and 256 MB; PBKDF2's iterations, half a second."""

MAX_KEYSTORE_BYTES: Final = 65_536

_VERSION: Final = 3
_CIPHER: Final = "aes-128-ctr"
_PRF: Final = "hmac-sha256"
_SECRET_BYTES: Final = 32
_MAC_BYTES: Final = 32
_IV_BYTES: Final = 16
_MIN_DERIVED_BYTES: Final = 32  # 16 for the cipher, 16 for the MAC
_MAX_DERIVED_BYTES: Final = 1024
_SCRYPT_BLOCK_BYTES: Final = 128  # RFC 7914 §2: n blocks of 128 · r bytes
_MAX_SCRYPT_LANES: Final = 64
_MAX_ITERATIONS: Final = 100_000_000


class KeystoreRefused(Exception):
    """A keystore cannot be used; the text is the reason."""


@dataclass(frozen=True, slots=True, repr=False)
class Web3Keystore:
    """A V3 file, read and found well-formed.

    Attributes:
        address: EIP-55, or ``None`` where the file does not say; nothing has proved it yet.
        memory: what its key derivation takes, in bytes.
    """

    address: str | None
    memory: int
    _crypto: Mapping[str, Any]

    def decrypt(self, password: bytes) -> bytes:
        """Give the private key, 32 bytes; takes ``memory`` and, at the usual strength, half a second of CPU.

        Raises:
            KeystoreRefused: the password does not fit.
        """
        return decrypt_crypto(self._crypto, password)


def read_keystore(text: bytes) -> Web3Keystore:
    """Read a V3 file.

    Raises:
        KeystoreRefused: it is not one.
    """
    if len(text) > MAX_KEYSTORE_BYTES:
        raise KeystoreRefused(f"is over {MAX_KEYSTORE_BYTES} bytes: it is no keystore")
    try:
        document = _lower_case(json.loads(text))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise KeystoreRefused("is not JSON, or not an object: it is no keystore")
    if document.get("version") != _VERSION:
        raise KeystoreRefused("is not of version 3 of Web3 Secret Storage")
    crypto, memory = read_crypto(document, least=_SECRET_BYTES, most=_SECRET_BYTES)
    return Web3Keystore(_address(document), memory, crypto)


def read_crypto(document: Mapping[str, Any], *, least: int, most: int) -> tuple[Mapping[str, Any], int]:
    """Check the section ``crypto``, whatever stands around it.

    Args:
        document: what holds it; names in lower case.
        least: of the secret's length, in bytes.
        most: the same.

    Returns:
        The section, and what its key derivation takes, in bytes.

    Raises:
        KeystoreRefused: a field of it cannot be used.
    """
    crypto = _object(document, "crypto")
    if crypto.get("cipher") != _CIPHER:
        raise KeystoreRefused(f"has another cipher than {_CIPHER}")
    _hexadecimal(crypto, "ciphertext", least, most)
    _hexadecimal(crypto, "mac", _MAC_BYTES, _MAC_BYTES)
    _hexadecimal(_object(crypto, "cipherparams"), "iv", 1, _IV_BYTES)  # some writers drop leading zeros
    return crypto, _memory(crypto)


def decrypt_crypto(crypto: Mapping[str, Any], password: bytes) -> bytes:
    """Give the secret of a section that ``read_crypto`` has found well-formed.

    Raises:
        KeystoreRefused: the password does not fit.
    """
    secret: bytes | None = None
    with contextlib.suppress(ValueError):  # the MAC does not fit; every other reason was looked for before
        secret = decode_keyfile_json({"version": _VERSION, "crypto": dict(crypto)}, password)  # type: ignore[arg-type] # see the module
    if secret is None:
        hint = " (the password file is empty)" if not password else ""
        raise KeystoreRefused(f"the password does not open it{hint}")
    return secret


def make_keystore(secret: bytes, password: bytes, *, kdf: Kdf = "scrypt", work: int | None = None) -> bytes:
    """Encrypt a private key.

    Args:
        secret: 32 bytes.
        password: its bytes, as they are.
        kdf: the key derivation.
        work: scrypt's n, a power of two; or PBKDF2's iterations. ``None`` for ``WORK_FOR_KDF``.

    Returns:
        The V3 file's JSON.
    """
    document = create_keyfile_json(
        secret,
        password,  # type: ignore[arg-type] # see the module
        kdf=kdf,
        iterations=WORK_FOR_KDF[kdf] if work is None else work,
    )
    parameters = document["crypto"]["cipherparams"]
    parameters["iv"] = parameters["iv"].zfill(
        2 * _IV_BYTES
    )  # eth_keyfile drops leading zeros; geth then cannot read it
    return json.dumps(document).encode("ascii")


def _memory(crypto: Mapping[str, Any]) -> int:
    """Check the key derivation's parameters and tell what they cost."""
    kdf, parameters = crypto.get("kdf"), _object(crypto, "kdfparams")
    _hexadecimal(parameters, "salt", 1, MAX_KEYSTORE_BYTES)
    _number(parameters, "dklen", _MIN_DERIVED_BYTES, _MAX_DERIVED_BYTES)
    if kdf == "pbkdf2":
        if parameters.get("prf") != _PRF:
            raise KeystoreRefused(f"has another kdfparams.prf than {_PRF}")
        _number(parameters, "c", 1, _MAX_ITERATIONS)
        return 0
    if kdf == "scrypt":
        n = _number(parameters, "n", 2, 2**32)
        r = _number(parameters, "r", 1, 2**16)
        p = _number(parameters, "p", 1, _MAX_SCRYPT_LANES)
        if n & (n - 1):
            raise KeystoreRefused("has a kdfparams.n that is no power of two (RFC 7914 §2)")
        return _SCRYPT_BLOCK_BYTES * r * (n + p)
    raise KeystoreRefused("has another kdf than scrypt or pbkdf2")


def _address(document: Mapping[str, Any]) -> str | None:
    text = document.get("address")
    if text is None:
        return None
    address = text if isinstance(text, str) and text.startswith("0x") else f"0x{text}"
    if ADDRESS.fullmatch(address) is None:
        raise KeystoreRefused("has an address that is not 40 hex digits")
    return checksum_address(address)


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise KeystoreRefused(f"has no object {name}")
    return value


def _hexadecimal(document: Mapping[str, Any], name: str, least: int, most: int) -> None:
    try:
        length = len(bytes.fromhex(str(document.get(name)).removeprefix("0x")))
    except ValueError:
        length = -1
    if not least <= length <= most:
        raise KeystoreRefused(f"has a {name} that is missing, not hex, or of the wrong length")


def _number(document: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise KeystoreRefused(f"has a kdfparams.{name} that is missing or outside {least} … {most}")
    return value


def _lower_case(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Lower-case every name, for old writers spell ``Crypto``."""
    if isinstance(value, dict):
        return {name.lower(): _lower_case(inner) for name, inner in value.items()}
    return value
