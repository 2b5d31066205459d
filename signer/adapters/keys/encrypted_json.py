"""Web3 Secret Storage, version 3: one private key, encrypted under a password, in a JSON file.

The format is https://ethereum.org/developers/docs/data-structures-and-encoding/web3-secret-storage/; ``eth_keyfile``
does the cryptography. This module adds what ``eth_keyfile`` does not do:

* It computes how many bytes of memory the key derivation needs, before the derivation starts.
* It checks every field before it uses the password, so a later failure means a wrong password.
* It passes the password as bytes: ``eth_keyfile`` would encode text as Latin-1 for scrypt, other tools use UTF-8.
* It raises errors only in frames without secret local variables, and without a chained exception.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from signer.adapters.secret_files import KeyFileError
from signer.domain.ethereum import ADDRESS, checksum_address

Kdf = Literal["scrypt", "pbkdf2"]
WORK_FOR_KDF: Final[dict[Kdf, int]] = {"scrypt": 262_144, "pbkdf2": 1_000_000}
"""The default work factors: scrypt's n (0.5 s, 256 MB), PBKDF2's iterations (0.5 s)."""

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
_MAX_SCRYPT_PARALLELIZATION: Final = 64
_MAX_ITERATIONS: Final = 100_000_000


@dataclass(frozen=True, slots=True, repr=False)
class EncryptedSecret:
    """A well-formed section ``crypto``.

    Attributes:
        memory: what the key derivation needs, in bytes.
        crypto: the section.
    """

    memory: int
    crypto: Mapping[str, Any]

    def check_memory(self, budget: int) -> None:
        """Check that the key derivation needs at most ``budget`` bytes.

        Raises:
            KeyFileError: it needs more.
        """
        if self.memory > budget:
            raise KeyFileError(
                f"needs {self.memory >> 20} MiB to open and the budget is {budget >> 20} MiB: "
                "raise keys.open_memory, or re-encrypt it with less work",
                "error",
            )

    def decrypt(self, password: bytes) -> bytes:
        """Return the secret. Takes half a second of CPU with the default work factors.

        Raises:
            KeyFileError: the password is wrong.
        """
        secret: bytes | None = None
        with contextlib.suppress(ValueError):  # the MAC differs; parse_crypto has excluded every other reason
            secret = decode_keyfile_json({"version": _VERSION, "crypto": dict(self.crypto)}, password)  # type: ignore[arg-type] # see the module
        if secret is None:
            hint = " (the password file is empty)" if not password else ""
            raise KeyFileError(f"the password does not open it{hint}", "authentication")
        return secret


@dataclass(frozen=True, slots=True, repr=False)
class Web3Keystore(EncryptedSecret):
    """A V3 file with a private key. Some programs leave out its leading zero bytes.

    Attributes:
        address: the address in the file (EIP-55), not verified; ``None`` if the file has none.
    """

    address: str | None

    def decrypt(self, password: bytes) -> bytes:
        """Return the private key, 32 bytes; as ``EncryptedSecret.decrypt``."""
        return EncryptedSecret.decrypt(self, password).rjust(_SECRET_BYTES, b"\0")


def parse_keystore(text: bytes | bytearray) -> Web3Keystore:
    """Parse a V3 file.

    Raises:
        KeyFileError: the file is not a V3 keystore.
    """
    try:
        document = _lower_case(json.loads(text))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise KeyFileError("is not a keystore: it is not a JSON object")
    if document.get("version") != _VERSION:
        raise KeyFileError("is not version 3 of Web3 Secret Storage", "error")
    secret = parse_crypto(document, min_bytes=1, max_bytes=_SECRET_BYTES)
    return Web3Keystore(secret.memory, secret.crypto, _address(document))


def parse_crypto(document: Mapping[str, Any], *, min_bytes: int, max_bytes: int) -> EncryptedSecret:
    """Parse the section ``crypto`` of a document, whose names are in lower case.

    Raises:
        KeyFileError: a field cannot be used, or the secret's length is out of bounds.
    """
    crypto = _object(document, "crypto")
    if crypto.get("cipher") != _CIPHER:
        raise KeyFileError(f"has an unsupported cipher: only {_CIPHER} is supported", "error")
    _check_hex(crypto, "ciphertext", min_bytes, max_bytes)
    _check_hex(crypto, "mac", _MAC_BYTES, _MAC_BYTES)
    _check_hex(_object(crypto, "cipherparams"), "iv", 1, _IV_BYTES)  # some writers drop leading zeros
    return EncryptedSecret(_derivation_memory(crypto), crypto)


def encrypt_keystore(secret: bytes, password: bytes, *, kdf: Kdf = "scrypt", work: int | None = None) -> bytes:
    """Return the JSON of a V3 file for a private key of 32 bytes.

    ``work`` is scrypt's n, a power of two, or PBKDF2's iterations; ``None`` for ``WORK_FOR_KDF``.
    """
    document = create_keyfile_json(
        secret,
        password,  # type: ignore[arg-type] # see the module
        kdf=kdf,
        iterations=WORK_FOR_KDF[kdf] if work is None else work,
    )
    parameters = document["crypto"]["cipherparams"]
    parameters["iv"] = parameters["iv"].zfill(2 * _IV_BYTES)  # eth_keyfile drops leading zeros, and geth needs them
    return json.dumps(document).encode("ascii")


def _derivation_memory(crypto: Mapping[str, Any]) -> int:
    """Check the parameters of the key derivation and return the memory that it needs."""
    kdf, parameters = crypto.get("kdf"), _object(crypto, "kdfparams")
    _check_hex(parameters, "salt", 1, MAX_KEYSTORE_BYTES)
    _integer(parameters, "dklen", _MIN_DERIVED_BYTES, _MAX_DERIVED_BYTES)
    if kdf == "pbkdf2":
        if parameters.get("prf") != _PRF:
            raise KeyFileError(f"has an unsupported kdfparams.prf: only {_PRF} is supported", "error")
        _integer(parameters, "c", 1, _MAX_ITERATIONS)
        return 0
    if kdf == "scrypt":
        n = _integer(parameters, "n", 2, 2**32)
        r = _integer(parameters, "r", 1, 2**16)
        p = _integer(parameters, "p", 1, _MAX_SCRYPT_PARALLELIZATION)
        if n & (n - 1):
            raise KeyFileError("has a kdfparams.n that is not a power of two (RFC 7914 §2)")
        return _SCRYPT_BLOCK_BYTES * r * (n + p)
    raise KeyFileError("has an unsupported kdf: only scrypt and pbkdf2 are supported", "error")


def _address(document: Mapping[str, Any]) -> str | None:
    text = document.get("address")
    if text is None:
        return None
    address = f"0x{str(text).lower().removeprefix('0x')}"
    if ADDRESS.fullmatch(address) is None:
        raise KeyFileError("has an address that is not 40 hex digits")
    return checksum_address(address)


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise KeyFileError(f"has no object {name}")
    return value


def _check_hex(document: Mapping[str, Any], name: str, min_bytes: int, max_bytes: int) -> None:
    try:
        length = len(bytes.fromhex(str(document.get(name)).removeprefix("0x")))
    except ValueError:
        length = -1
    if not min_bytes <= length <= max_bytes:
        raise KeyFileError(f"has a {name} that is missing, not hex, or of the wrong length")


def _integer(document: Mapping[str, Any], name: str, lowest: int, highest: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise KeyFileError(f"has a kdfparams.{name} that is missing or outside {lowest} … {highest}")
    return value


def _lower_case(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the value with all names in lower case, because old writers spell ``Crypto``."""
    if isinstance(value, dict):
        return {name.lower(): _lower_case(inner) for name, inner in value.items()}
    return value
