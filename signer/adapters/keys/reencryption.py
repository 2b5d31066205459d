"""Encrypts a directory of keystores anew: under another password, or with another key derivation.

* All or nothing: the new directory appears whole, under its name, or not at all. It is made beside it, and renamed.
* Each new file is opened again, with the password that it was given, and has to hold the key that went in.
* Files keep their names, for passwords may be found by them. The old files are only read.
* Directory and files are their owner's alone (0700, 0600), and on the disk before this returns.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from signer.adapters.keys.backend import KeyBackendError, Progress
from signer.adapters.keys.encrypted_json import Kdf, KeystoreRefused, make_keystore, read_keystore
from signer.adapters.keys.key_uri import file_uri
from signer.adapters.keys.keystore.backend import SCHEME, FoundKeystore, survey_keystores
from signer.adapters.keys.local_key import LocalKey
from signer.adapters.keys.new_file import write_new_file
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.passwords import Passwords

_OWNER_ONLY: Final = 0o700


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """One keystore that was encrypted anew.

    Attributes:
        owner: EIP-55.
        path: the new file.
        memory_before: what opening the old file takes, in bytes.
        memory: what opening the new one takes.
    """

    owner: str
    path: Path
    memory_before: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How keystores are encrypted.

    Attributes:
        password: the bytes that its file will hold, without a newline.
        kdf: the key derivation.
        work: scrypt's n or PBKDF2's iterations; ``None`` for the usual strength.
    """

    password: bytes
    kdf: Kdf = "scrypt"
    work: int | None = None

    def __repr__(self) -> str:
        return f"Encryption(kdf={self.kdf!r}, work={self.work!r}, ***)"


async def reencrypt_keystores(
    source: Path,
    passwords: Passwords,
    target: Path,
    encryption: Encryption,
    *,
    pool: OpeningPool,
    progress: Progress,
) -> list[Reencrypted]:
    """Write the keystores of ``source`` to ``target``, encrypted anew.

    Args:
        source: a V3 file, or a directory of them.
        passwords: where their passwords are.
        target: a directory that is not there, or empty.
        encryption: of the new files.
        pool: the threads that open and encrypt.
        progress: hears of each keystore that has been dealt with.

    Raises:
        KeyBackendError: a keystore cannot be opened, or something cannot be written; ``target`` is as it was.
    """
    found, failures = await pool.run(partial(survey_keystores, source, passwords, pool.memory_budget))
    if failures:
        raise _refused(failures)
    done = 0
    workshop = await pool.run(partial(_make_beside, target))
    try:

        async def one(keystore: FoundKeystore) -> Reencrypted | str:
            nonlocal done
            work = partial(_reencrypt, keystore, passwords, workshop, encryption)
            made = await pool.run(work, memory=min(pool.memory_budget, keystore.keystore.memory))
            done += 1
            progress(done, len(found))
            return made

        outcomes = await asyncio.gather(*(one(keystore) for keystore in found))
        failed = {
            file_uri(SCHEME, keystore.path): made
            for keystore, made in zip(found, outcomes, strict=True)
            if isinstance(made, str)
        }
        if failed:
            raise _refused(failed)
        await pool.run(partial(_put_in_place, workshop, target))
    except BaseException:
        shutil.rmtree(workshop, ignore_errors=True)
        raise
    return [
        Reencrypted(made.owner, target / made.path.name, made.memory_before, made.memory)
        for made in outcomes
        if isinstance(made, Reencrypted)
    ]


def _reencrypt(
    found: FoundKeystore,
    passwords: Passwords,
    workshop: Path,
    encryption: Encryption,
) -> Reencrypted | str:
    """Encrypt one keystore anew, or say why it cannot be; blocking.

    No exception leaves, for its frames would hold the secret.
    """
    try:
        secret = found.keystore.decrypt(passwords.read_for(found.path, found.keystore.address))
        owner = LocalKey(secret, "").address
        if found.keystore.address not in {None, owner}:
            return f"says address {found.keystore.address} and holds the key of {owner}"
        text = make_keystore(secret, encryption.password, kdf=encryption.kdf, work=encryption.work)
        made = read_keystore(text)
        if made.decrypt(encryption.password) != secret:
            return "could not be opened again after it was encrypted anew"
        path = workshop / found.path.name
        write_new_file(path, text)
    except KeystoreRefused as refusal:
        return str(refusal)
    except OSError as exc:
        return f"its new file cannot be written ({exc.strerror})"
    except Exception as exc:  # noqa: BLE001 - see above
        return f"could not be encrypted anew ({type(exc).__name__})"
    return Reencrypted(owner, path, found.keystore.memory, made.memory)


def _make_beside(target: Path) -> Path:
    """Make the directory that will be ``target``; on the same file system, so that renaming is one step."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise KeyBackendError(f"{target} is there already: name a directory that is not, or that is empty")
    workshop = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        workshop.mkdir(mode=_OWNER_ONLY)
    except OSError as exc:
        raise KeyBackendError(f"no directory can be made in {target.parent} ({exc.strerror})") from exc
    return workshop


def _put_in_place(workshop: Path, target: Path) -> None:
    try:
        workshop.rename(target)  # takes an empty directory's place
        parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as exc:
        raise KeyBackendError(f"the new keystores cannot be put at {target} ({exc.strerror})") from exc


def _refused(failures: dict[str, str]) -> KeyBackendError:
    lines = "\n".join(f"  {what} {why}" for what, why in sorted(failures.items()))
    return KeyBackendError(f"nothing was written, for not every keystore can be encrypted anew:\n{lines}")
