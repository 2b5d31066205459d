"""Many V3 keystores of the usual strength, created quickly: all share one key derivation, and opening needs one each.

They share a salt, which real files must not; opening them is no different.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from Crypto.Protocol.KDF import scrypt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from eth_utils.crypto import keccak

from signer.adapters.keys.in_memory_key import InMemoryKey, new_secret

N: Final = 262_144
R: Final = 8
P: Final = 1
_DERIVED_BYTES: Final = 32


def derive(password: bytes, salt: bytes, n: int = N) -> bytes:
    """Return the derived key (RFC 7914), 32 bytes, computed by the library that opens keystores."""
    derived = scrypt(password, salt, _DERIVED_BYTES, N=n, r=R, p=P)  # type: ignore[arg-type] # it takes bytes, too
    assert isinstance(derived, bytes)
    return derived


def write_strong_keystores(directory: Path, count: int, password: bytes, n: int = N) -> Sequence[str]:
    """Write ``count`` keystores with new keys and return their owners."""
    salt = secrets.token_bytes(32)
    derived = derive(password, salt, n)
    owners = []
    for _ in range(count):
        secret, iv = new_secret(), secrets.token_bytes(16)
        encryptor = Cipher(algorithms.AES(derived[:16]), modes.CTR(iv)).encryptor()
        ciphertext = encryptor.update(secret) + encryptor.finalize()
        owner = InMemoryKey(secret, "").address
        document = {
            "version": 3,
            "address": owner[2:].lower(),
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": {"iv": iv.hex()},
                "ciphertext": ciphertext.hex(),
                "kdf": "scrypt",
                "kdfparams": {"dklen": _DERIVED_BYTES, "n": n, "r": R, "p": P, "salt": salt.hex()},
                "mac": keccak(derived[16:] + ciphertext).hex(),
            },
        }
        (directory / f"{owner}.json").write_text(json.dumps(document))
        owners.append(owner)
    return sorted(owners)
