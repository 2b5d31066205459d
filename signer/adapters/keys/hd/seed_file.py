r"""The file that holds a seed: the section ``crypto`` of Web3 Secret Storage V3, with the seed where a key would be.

::

    {"format": "hd-seed", "version": 1, "id": "…", "crypto": {"cipher": "aes-128-ctr", "kdf": "scrypt", …}}

* **The seed is kept, not the words.** It is what signing needs, and no more: whoever opens the file learns neither the
  mnemonic nor its passphrase. That is in the seed already, so no second secret has to be mounted. There is no way back
  to words; they belong on paper. Seeds that never were words (BIP-32: 16 to 64 bytes) are held as well.
* **V3's cryptography**, for it is known, reviewed and strong enough, and everybody's tools open it. Not a V3 file,
  though: ``version`` and ``format`` are others, so that no keystore reader takes a seed of 32 bytes for a private key,
  and no seed is read out of a keystore.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from eth_utils.crypto import keccak

from signer.adapters.keys.encrypted_json import (
    WORK_FOR_KDF,
    Kdf,
    KeystoreRefused,
    decrypt_crypto,
    read_crypto,
)
from signer.adapters.keys.hd.bip32 import MAX_SEED_BYTES, MIN_SEED_BYTES

_FORMAT: Final = "hd-seed"
_VERSION: Final = 1
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
_DERIVED_BYTES: Final = 32
_KEY_BYTES: Final = 16
_SALT_BYTES: Final = 32
_IV_BYTES: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class SeedFile:
    """A seed's file, read and found well-formed.

    Attributes:
        memory: what its key derivation takes, in bytes.
    """

    memory: int
    _crypto: Mapping[str, Any]

    def decrypt(self, password: bytes) -> bytes:
        """Give the seed, 16 to 64 bytes; takes ``memory`` and, at the usual strength, half a second of CPU.

        Raises:
            KeystoreRefused: the password does not fit.
        """
        return decrypt_crypto(self._crypto, password)


def read_seed_file(text: bytes) -> SeedFile:
    """Read a seed's file.

    Raises:
        KeystoreRefused: it is not one; the text says why, to go behind its name.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise KeystoreRefused(f'is not a JSON object with "format": "{_FORMAT}": it is no seed\'s file')
    if document.get("version") != _VERSION:
        raise KeystoreRefused(f"is of another version than {_VERSION}")
    crypto, memory = read_crypto(document, least=MIN_SEED_BYTES, most=MAX_SEED_BYTES)
    return SeedFile(memory, crypto)


def make_seed_file(seed: bytes, password: bytes, *, kdf: Kdf = "scrypt", work: int | None = None) -> bytes:
    """Encrypt a seed.

    Args:
        seed: 16 to 64 bytes.
        password: its bytes, as they are.
        kdf: the key derivation.
        work: scrypt's n, a power of two; or PBKDF2's iterations. ``None`` for ``WORK_FOR_KDF``.

    Returns:
        The file's JSON.
    """
    work = WORK_FOR_KDF[kdf] if work is None else work
    salt, iv = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_IV_BYTES)
    parameters: dict[str, Any] = {"dklen": _DERIVED_BYTES, "salt": salt.hex()}
    if kdf == "scrypt":
        parameters |= {"n": work, "r": _SCRYPT_R, "p": _SCRYPT_P}
        derived = hashlib.scrypt(
            password,
            salt=salt,
            n=work,
            r=_SCRYPT_R,
            p=_SCRYPT_P,
            dklen=_DERIVED_BYTES,
            maxmem=128 * _SCRYPT_R * (work + _SCRYPT_P + 2),  # RFC 7914 §2, and OpenSSL's own two blocks
        )
    else:
        parameters |= {"c": work, "prf": "hmac-sha256"}
        derived = hashlib.pbkdf2_hmac("sha256", password, salt, work, _DERIVED_BYTES)
    encryptor = Cipher(AES(derived[:_KEY_BYTES]), CTR(iv)).encryptor()
    ciphertext = encryptor.update(seed) + encryptor.finalize()
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv.hex()},
        "ciphertext": ciphertext.hex(),
        "kdf": kdf,
        "kdfparams": parameters,
        "mac": keccak(derived[_KEY_BYTES:] + ciphertext).hex(),
    }
    document = {"format": _FORMAT, "version": _VERSION, "id": str(uuid.uuid4()), "crypto": crypto}
    return json.dumps(document).encode("ascii")
