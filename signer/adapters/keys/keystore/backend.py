r"""``keystore:`` Web3 Secret Storage V3 files, one or a directory of them, with their passwords in files.

::

    keystore:/run/secrets/keys?password_file=/run/secrets/password
    keystore:/run/secrets/keys?password_dir=/run/secrets/passwords
    keystore:/run/secrets/owner.json?password_file=/run/secrets/password

* In a directory every file is a keystore, except ``*.txt`` and ``*.pass`` (passwords), ``password_file`` itself, and
  names that begin with a dot. Subdirectories are ignored. Symlinks are followed, because Kubernetes mounts
  secrets through symlinks.
* ``password_file`` opens all keystores. ``password_dir`` has one file for each: named like the keystore without
  ``.json``, or by its address (with or without ``0x``), plus ``.txt`` or ``.pass``; letter case does not matter.
* A password is the file's bytes without one ``\n`` or ``\r\n`` at the end.
* A file is refused if its ``address`` is not the address of its key.
* A reload does not decrypt a file again if file and password are unchanged.
* Files are read and decrypted in the threads of ``OpeningPool``.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from signer.adapters.keys.backend import BackendResources, KeyBackendError, KeyUriInvalid, LoadedKeys, Progress
from signer.adapters.keys.encrypted_json import (
    MAX_KEYSTORE_BYTES,
    Kdf,
    Web3Keystore,
    encrypt_keystore,
    parse_keystore,
)
from signer.adapters.keys.in_memory_key import InMemoryKey, new_secret
from signer.adapters.keys.key_uri import KeyUri, file_uri
from signer.adapters.keys.keystore.passwords import PasswordDirectory, PasswordSource
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.secret_files import KeyFileError, fingerprint_of, read_file, write_new_file
from signer.application.ports import KeyFailure
from signer.domain.ethereum import checksum_address

SCHEME: Final = "keystore"

_NAME_WITH_ADDRESS: Final = re.compile(r"(?<![0-9a-fA-F])(?P<digits>[0-9a-fA-F]{40})(?:\.json)?\Z", re.ASCII)
_OpenedKey = tuple[bytes, InMemoryKey]
"""The fingerprint of a file and its password, and the key."""


@dataclass(frozen=True, slots=True)
class UnopenedKeystore:
    """A keystore file that was read and is still encrypted."""

    path: Path
    text: bytearray
    keystore: Web3Keystore

    @property
    def uri(self) -> str:
        """The file as a key URI."""
        return file_uri(SCHEME, self.path)

    def decrypt(self, passwords: PasswordSource) -> bytes:
        """Return the private key; blocking.

        Raises:
            KeyFileError: the password is missing or wrong.
        """
        return self.keystore.decrypt(passwords.read_for(self.path, self.keystore.address))

    def address_mismatch(self, owner: str) -> str | None:
        """Return why the file is refused if its ``address`` is not the owner of its key."""
        if self.keystore.address in {None, owner}:
            return None
        return KeyFailure(f"has the address {self.keystore.address} and the key of {owner}", "damaged")


class KeystoreBackend:
    """A ``KeyBackend`` over V3 files."""

    def __init__(self, path: Path, passwords: PasswordSource, *, pool: OpeningPool) -> None:
        """Create the backend; nothing is read before ``load``."""
        self._path = path
        self._passwords = passwords
        self._pool = pool
        self._opened: dict[Path, _OpenedKey] = {}

    @property
    def uri(self) -> str:
        """The path, as a key URI without parameters."""
        return file_uri(SCHEME, self._path)

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``."""
        read = partial(read_keystores, self._path, self._passwords, self._pool.memory_budget)
        found, failures = await self._pool.run(read)
        total, done = len(found) + len(failures), len(failures)
        progress(done, total)

        async def open_one(one: UnopenedKeystore) -> _OpenedKey | str:
            nonlocal done
            opened = await self._pool.run(partial(self._open, one), memory=one.keystore.memory)
            done += 1
            progress(done, total)
            return opened

        results = await asyncio.gather(*(open_one(one) for one in found))
        opened: dict[Path, _OpenedKey] = {}
        named = {_address_in_name(uri) for uri in failures}
        for one, result in zip(found, results, strict=True):
            if isinstance(result, str):
                failures[one.uri] = result
                named.add(one.keystore.address or _address_in_name(one.uri))
            else:
                opened[one.path] = result
        self._opened = opened
        return LoadedKeys([key for _, key in opened.values()], failures, frozenset(filter(None, named)))

    async def close(self) -> None:
        """Release the keys."""
        self._opened = {}

    def _open(self, found: UnopenedKeystore) -> _OpenedKey | str:
        """Return the key of a keystore, or the reason why it cannot be opened; blocking.

        It raises nothing, because an exception's frames would hold the secret.
        """
        try:
            password = self._passwords.read_for(found.path, found.keystore.address)
            fingerprint = fingerprint_of(password, found.text)
            known = self._opened.get(found.path)
            if known is not None and secrets.compare_digest(known[0], fingerprint):
                return known
            key = InMemoryKey(found.keystore.decrypt(password), found.uri)
        except KeyFileError as refusal:
            return KeyFailure(str(refusal), refusal.cause)
        except ValueError:
            return KeyFailure("does not hold a secp256k1 key", "damaged")
        except Exception as exc:  # noqa: BLE001 - see above
            return f"could not be opened ({type(exc).__name__})"
        return found.address_mismatch(key.address) or (fingerprint, key)


def read_keystores(
    path: Path,
    passwords: PasswordSource,
    memory_budget: int,
) -> tuple[list[UnopenedKeystore], dict[str, str]]:
    """Read keystore files without decrypting them; blocking.

    Returns:
        The keystores that can be opened if the password is right, and the reason for each other file, by URI.

    Raises:
        KeyBackendError: the path or the passwords cannot be read at all.
    """
    try:
        paths = _keystore_paths(path, passwords)
    except OSError as exc:
        raise KeyBackendError(
            f"the keystores {path} cannot be read ({exc.strerror}): "
            "name a V3 file, or a directory of V3 files, that the signer's user may read",
        ) from exc
    passwords.check()
    if not paths:
        return [], {file_uri(SCHEME, path): "has no keystore"}
    found: list[UnopenedKeystore] = []
    failures: dict[str, str] = {}
    for each in paths:
        try:
            text = read_file(each, MAX_KEYSTORE_BYTES)
            keystore = parse_keystore(text)
            keystore.check_memory(memory_budget)
        except KeyFileError as refusal:
            failures[file_uri(SCHEME, each)] = KeyFailure(str(refusal), refusal.cause)
        else:
            found.append(UnopenedKeystore(each, text, keystore))
    return found, failures


def _address_in_name(uri: str) -> str | None:
    """Return the owner that a keystore's name ends with, as in ``0x….json`` or geth's ``UTC--…``."""
    match = _NAME_WITH_ADDRESS.search(uri)
    return None if match is None else checksum_address(f"0x{match['digits']}")


def _keystore_paths(path: Path, passwords: PasswordSource) -> Sequence[Path]:
    if not path.is_dir():
        path.stat()
        return [path]
    return sorted(
        each
        for each in path.iterdir()
        if not each.name.startswith(".") and not passwords.is_password_file(each) and not each.is_dir()
    )


def create_keystore_backend(uri: KeyUri, resources: BackendResources) -> KeystoreBackend:
    """Create the backend of a ``keystore:`` URI.

    Raises:
        KeyUriInvalid: the URI has not exactly one of ``password_file`` and ``password_dir``, or an unknown parameter.
    """
    passwords = password_source(uri)
    if passwords is None:
        raise KeyUriInvalid(f"the key URI {uri} needs either password_file=<path> or password_dir=<path>")
    return KeystoreBackend(uri.file_path(), passwords, pool=resources.opening)


def password_source(uri: KeyUri) -> PasswordSource | None:
    """Return where a ``keystore:`` URI says that the passwords are, or ``None`` if it does not.

    Raises:
        KeyUriInvalid: it is another backend's URI, or has both parameters or an unknown one.
    """
    if uri.scheme != SCHEME:
        raise KeyUriInvalid(f"{uri} is not a place of keystores")
    uri.allow_only("password_file", "password_dir")
    file, directory = uri.file_parameter("password_file"), uri.file_parameter("password_dir")
    if file is not None and directory is not None:
        raise KeyUriInvalid(f"the key URI {uri} needs either password_file=<path> or password_dir=<path>")
    if directory is not None:
        return PasswordDirectory(directory)
    return None if file is None else PasswordSource(file)


def write_keystore(
    directory: Path,
    secret: bytes | None,
    password: bytes,
    *,
    kdf: Kdf = "scrypt",
    work: int | None = None,
) -> Path:
    """Create the V3 file ``<directory>/<EIP-55 address>.json`` with mode 0600; blocking.

    Args:
        directory: must exist.
        secret: the private key, 32 bytes; ``None`` for a new random key.
        password: the password file's bytes without the newline; not empty.
        kdf: the key derivation.
        work: see ``encrypt_keystore``; 2 … 4096 is for demonstrations.

    Raises:
        FileExistsError: the directory has a file of that name.
        OSError: the file cannot be written.
        ValueError: the password is empty or ends with a newline, or ``secret`` is not a secp256k1 key.
    """
    if not password or password.endswith(b"\n"):
        raise ValueError("a keystore's password must not be empty and must not end with a newline")
    secret = new_secret() if secret is None else secret
    address = InMemoryKey(secret, "").address
    text = encrypt_keystore(secret, password, kdf=kdf, work=work)
    del secret, password  # a traceback of a later failure could show local variables
    path = directory / f"{address}.json"
    write_new_file(path, text)
    return path
