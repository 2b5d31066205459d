"""The rows of the contract suite: one for each key backend, each over the real thing.

A row prepares a backend in a state that holds some owners' keys, and knows how to take one key away and how to take the
whole backend down. What the suite asks of it is in ``test_key_backend_contract.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from signer.adapters.keys.keystores import write_keystore

PASSWORD = b"correct horse battery staple"
SECRETS = tuple(bytes([number]) * 32 for number in (0x11, 0x22, 0x33))


@dataclass(frozen=True, slots=True)
class PreparedBackend:
    """One backend that stands ready.

    Attributes:
        uri: its key URI.
        owners: EIP-55, ordered: whose keys it holds.
        secrets: what must never be seen.
        signs_while_down: whether keys that were loaded go on signing when the place that they came from is gone.
        remove: takes one owner's key away.
        take_down: makes the whole backend unusable.
    """

    uri: str
    owners: tuple[str, ...]
    secrets: tuple[bytes, ...]
    signs_while_down: bool
    remove: Callable[[str], None]
    take_down: Callable[[], None]


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One backend of the suite; ``prepare`` gets a directory of its own."""

    name: str
    prepare: Callable[[Path], PreparedBackend]


def _keystores(directory: Path, *, kdf: Literal["scrypt", "pbkdf2"]) -> PreparedBackend:
    keys = directory / "keys"
    keys.mkdir()
    password_file = directory / "password"
    password_file.write_bytes(PASSWORD + b"\n")
    files = [write_keystore(keys, secret, PASSWORD, kdf=kdf, work=2) for secret in SECRETS]
    return PreparedBackend(
        uri=f"keystore:{keys}?password_file={password_file}",
        owners=tuple(sorted(file.stem for file in files)),
        secrets=(*SECRETS, PASSWORD),
        signs_while_down=True,
        remove=lambda owner: (keys / f"{owner}.json").unlink(),
        take_down=lambda: shutil.rmtree(keys),
    )


ROWS = (
    BackendRow("keystore-scrypt", partial(_keystores, kdf="scrypt")),
    BackendRow("keystore-pbkdf2", partial(_keystores, kdf="pbkdf2")),
)
