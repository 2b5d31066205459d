"""Re-encrypts a directory of keystores under another password or with another key derivation.

* All or nothing: new files go to a temporary directory, which is renamed to the target when all are written.
* Each new file is opened again and must hold the same key.
* Files keep their names, because passwords may be found by them. The old files are only read.
* Directory and files have modes 0700 and 0600, and are synced to the disk before the function returns.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from signer.adapters.keys.backend import KeyBackendError, Progress
from signer.adapters.keys.encrypted_json import Kdf, encrypt_keystore, parse_keystore
from signer.adapters.keys.in_memory_key import InMemoryKey
from signer.adapters.keys.keystore.backend import UnopenedKeystore, read_keystores
from signer.adapters.keys.keystore.passwords import PasswordSource
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.secret_files import KeyFileError, sync_directory, write_new_file


@dataclass(frozen=True, slots=True)
class ReencryptedKeystore:
    """One re-encrypted keystore.

    Attributes:
        owner: EIP-55.
        path: the new file.
        memory_before: the memory that opening the old file needs, in bytes.
        memory: the same of the new file.
    """

    owner: str
    path: Path
    memory_before: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeystoreEncryption:
    """How to encrypt keystores.

    Attributes:
        password: the password file's bytes without the newline.
        kdf: the key derivation.
        work: scrypt's n or PBKDF2's iterations; ``None`` for the usual strength.
    """

    password: bytes = field(repr=False)
    kdf: Kdf = "scrypt"
    work: int | None = None


async def reencrypt_keystores(
    source: Path,
    passwords: PasswordSource,
    target: Path,
    encryption: KeystoreEncryption,
    *,
    pool: OpeningPool,
    progress: Progress,
) -> list[ReencryptedKeystore]:
    """Write the keystores of ``source`` to ``target``, which must not exist or be empty, re-encrypted.

    Raises:
        KeyBackendError: a keystore cannot be opened, or a file cannot be written; ``target`` is unchanged.
    """
    found, failures = await pool.run(partial(read_keystores, source, passwords, pool.memory_budget))
    if failures:
        raise _nothing_written(failures)
    done = 0
    staging = await pool.run(partial(_create_staging, target))
    try:

        async def reencrypt(one: UnopenedKeystore) -> ReencryptedKeystore | str:
            nonlocal done
            work = partial(_reencrypt, one, passwords, staging, encryption)
            result = await pool.run(work, memory=min(pool.memory_budget, one.keystore.memory))
            done += 1
            progress(done, len(found))
            return result

        results = await asyncio.gather(*(reencrypt(one) for one in found))
        failures = {one.uri: result for one, result in zip(found, results, strict=True) if isinstance(result, str)}
        if failures:
            raise _nothing_written(failures)
        await pool.run(partial(_rename, staging, target))
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return [
        ReencryptedKeystore(each.owner, target / each.path.name, each.memory_before, each.memory)
        for each in results
        if isinstance(each, ReencryptedKeystore)
    ]


def _reencrypt(
    found: UnopenedKeystore,
    passwords: PasswordSource,
    staging: Path,
    encryption: KeystoreEncryption,
) -> ReencryptedKeystore | str:
    """Re-encrypt one keystore, or return the reason why it cannot be; blocking.

    It raises nothing, because an exception's frames would hold the secret.
    """
    try:
        secret = found.decrypt(passwords)
        owner = InMemoryKey(secret, "").address
        if (mismatch := found.address_mismatch(owner)) is not None:
            return mismatch
        text = encrypt_keystore(secret, encryption.password, kdf=encryption.kdf, work=encryption.work)
        new = parse_keystore(text)
        if new.decrypt(encryption.password) != secret:
            return "could not be opened again after it was re-encrypted"
        path = staging / found.path.name
        write_new_file(path, text)
    except KeyFileError as refusal:
        return str(refusal)
    except OSError as exc:
        return f"its new file cannot be written ({exc.strerror})"
    except Exception as exc:  # noqa: BLE001 - see above
        return f"could not be re-encrypted ({type(exc).__name__})"
    return ReencryptedKeystore(owner, path, found.keystore.memory, new.memory)


def _create_staging(target: Path) -> Path:
    """Create a directory beside ``target``, on the same file system, so that it can be renamed in one step."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise KeyBackendError(f"{target} exists already: name a directory that does not exist or is empty")
    try:
        return Path(mkdtemp(dir=target.parent, prefix=f".{target.name}."))  # mode 0700
    except OSError as exc:
        raise KeyBackendError(f"no directory can be created in {target.parent} ({exc.strerror})") from exc


def _rename(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)  # replaces an empty directory
        sync_directory(target.parent)
    except OSError as exc:
        raise KeyBackendError(f"the new keystores cannot be written to {target} ({exc.strerror})") from exc


def _nothing_written(failures: dict[str, str]) -> KeyBackendError:
    lines = "\n".join(f"  {uri} {reason}" for uri, reason in sorted(failures.items()))
    return KeyBackendError(f"nothing was written, because not every keystore can be re-encrypted:\n{lines}")
