"""The rows of the contract suite: one for each key backend, each over a real backend.

A row prepares a backend with some owners' keys, and can delete one key and make the whole backend unusable.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from signer.adapters.keys.hd.backend import write_seed
from signer.adapters.keys.keystore.backend import write_keystore
from tests.support.kms_server import CREDENTIALS, kms_server
from tests.support.messages import read_vectors
from tests.support.softhsm import PIN, SoftHsm

PASSWORD = b"correct horse battery staple"
SECRETS = tuple(bytes([number]) * 32 for number in (0x11, 0x22, 0x33))


@dataclass(frozen=True, slots=True)
class PreparedBackend:
    """One prepared backend.

    Attributes:
        uri: its key URI.
        owners: EIP-55, sorted.
        secrets: must never be shown.
        signs_while_down: whether loaded keys still sign after ``take_down``.
        remove: deletes one owner's key.
        spoil: damages one owner's key, or all keys if they cannot be damaged one by one.
        take_down: makes the whole backend unusable.
    """

    uri: str
    owners: tuple[str, ...]
    secrets: tuple[bytes, ...]
    signs_while_down: bool
    remove: Callable[[str], object]
    spoil: Callable[[str], object]
    take_down: Callable[[], None]


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One backend of the suite; ``prepare`` gets an empty directory.

    Attributes:
        name: its scheme, and its variant if there are several.
        prepare: prepares it for one test.
        needs: the programs that it runs.
    """

    name: str
    prepare: Callable[[Path], PreparedBackend]
    needs: tuple[str, ...] = ()


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
        spoil=lambda owner: (keys / f"{owner}.json").write_text("{}"),
        take_down=lambda: shutil.rmtree(keys),
    )


def _hd(directory: Path) -> PreparedBackend:
    vector = read_vectors("hd/bip44.json")
    accounts = vector["accounts"][:3]
    seed, password_file, indexes = directory / "seed.json", directory / "password", directory / "indexes"
    write_seed(seed, bytes.fromhex(vector["seed"]), PASSWORD, work=2)
    password_file.write_bytes(PASSWORD + b"\n")

    def list_all_but(gone: str) -> None:
        indexes.write_text("\n".join(str(account["index"]) for account in accounts if account["address"] != gone))

    list_all_but("")
    return PreparedBackend(
        uri=f"hd:{seed}?password_file={password_file}&path={vector['path']}&indexes_file={indexes}",
        owners=tuple(sorted(account["address"] for account in accounts)),
        secrets=(
            *(bytes.fromhex(account["secret"]) for account in accounts),
            bytes.fromhex(vector["seed"]),
            vector["mnemonic"].encode(),
            PASSWORD,
        ),
        signs_while_down=True,
        remove=list_all_but,
        spoil=lambda _owner: seed.write_text("{}"),
        take_down=seed.unlink,
    )


def _awskms(_directory: Path) -> PreparedBackend:
    os.environ.update(CREDENTIALS)  # where the SDK finds them; they are invented
    server, tag = kms_server(), str(uuid.uuid4())
    endpoint = server.open()
    key_for_owner = {server.owner(key): key for key in (server.new_key(tag) for _ in range(3))}
    return PreparedBackend(
        uri=endpoint.uri(f"?tag=Purpose%3D{tag}"),
        owners=tuple(sorted(key_for_owner)),
        secrets=tuple(CREDENTIALS[name].encode() for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")),
        signs_while_down=False,
        remove=lambda owner: server.client.schedule_key_deletion(KeyId=key_for_owner[owner], PendingWindowInDays=7),
        spoil=lambda owner: server.client.disable_key(KeyId=key_for_owner[owner]),
        take_down=endpoint.close,
    )


def _pkcs11(directory: Path) -> PreparedBackend:
    hsm = SoftHsm(directory)
    os.environ["SOFTHSM2_CONF"] = str(hsm.settings)  # SoftHSM reads it whenever it is initialised
    token = hsm.add_token()
    label_for_owner = {token.put(each, label).address: label for each in SECRETS for label in (each[:1].hex(),)}
    return PreparedBackend(
        uri=token.uri(),
        owners=tuple(sorted(label_for_owner)),
        secrets=(*SECRETS, PIN),
        signs_while_down=False,
        remove=lambda owner: token.remove(label_for_owner[owner]),
        spoil=lambda owner: token.remove_public_key(label_for_owner[owner]),
        take_down=token.take_out,
    )


ROWS = (
    BackendRow("keystore-scrypt", partial(_keystores, kdf="scrypt")),
    BackendRow("keystore-pbkdf2", partial(_keystores, kdf="pbkdf2")),
    BackendRow("hd", _hd),
    BackendRow("awskms", _awskms),
    BackendRow("pkcs11-softhsm", _pkcs11, needs=("softhsm2-util",)),
)
