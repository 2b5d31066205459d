r"""The file that holds a seed, encrypted like a Web3 Secret Storage V3 key.

::

    {"format": "hd-seed", "version": 1, "id": "…", "crypto": {"cipher": "aes-128-ctr", "kdf": "scrypt", …}}

* The file holds the seed, not the mnemonic: signing needs only the seed, and the passphrase is already part of it. The
  mnemonic cannot be recovered from it. Seeds without a mnemonic (BIP-32: 16 to 64 bytes) work too.
* The section ``crypto`` is V3's. ``format`` and ``version`` differ from V3, so that no keystore reader mistakes a seed
  for a private key, and this reader mistakes no keystore for a seed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from eth_hash.auto import keccak

from signer.adapters.keys.encrypted_json import WORK_FOR_KDF, EncryptedSecret, parse_crypto
from signer.adapters.keys.hd.bip32 import MAX_SEED_BYTES, MIN_SEED_BYTES
from signer.adapters.secret_files import KeyFileError

_FORMAT: Final = "hd-seed"
_VERSION: Final = 1
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
_DERIVED_BYTES: Final = 32
_KEY_BYTES: Final = 16
_SALT_BYTES: Final = 32
_IV_BYTES: Final = 16


def parse_seed_file(text: bytes | bytearray) -> EncryptedSecret:
    """Parse a seed file.

    Raises:
        KeyFileError: the file is not a seed file.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise KeyFileError(f'is not a seed file: it is not a JSON object with "format": "{_FORMAT}"')
    if document.get("version") != _VERSION:
        raise KeyFileError(f"is a seed file of an unsupported version: only {_VERSION} is supported", "error")
    return parse_crypto(document, min_bytes=MIN_SEED_BYTES, max_bytes=MAX_SEED_BYTES)


def encrypt_seed(seed: bytes, password: bytes, *, work: int = WORK_FOR_KDF["scrypt"]) -> bytes:
    """Return the JSON of a seed file; ``work`` is scrypt's n."""
    salt, iv = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_IV_BYTES)
    derived = hashlib.scrypt(
        password,
        salt=salt,
        n=work,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        dklen=_DERIVED_BYTES,
        maxmem=128 * _SCRYPT_R * (work + _SCRYPT_P + 2),  # RFC 7914 §2, and two blocks that OpenSSL adds
    )
    encryptor = Cipher(AES(derived[:_KEY_BYTES]), CTR(iv)).encryptor()
    ciphertext = encryptor.update(seed) + encryptor.finalize()
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv.hex()},
        "ciphertext": ciphertext.hex(),
        "kdf": "scrypt",
        "kdfparams": {"dklen": _DERIVED_BYTES, "salt": salt.hex(), "n": work, "r": _SCRYPT_R, "p": _SCRYPT_P},
        "mac": keccak(derived[_KEY_BYTES:] + ciphertext).hex(),
    }
    document = {"format": _FORMAT, "version": _VERSION, "id": str(uuid.uuid4()), "crypto": crypto}
    return json.dumps(document).encode("ascii")
