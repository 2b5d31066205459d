r"""``keystore:`` Web3 Secret Storage V3 files, one or a directory of them, with their passwords in files.

::

    keystore:/run/secrets/keys?password_file=/run/secrets/password
    keystore:/run/secrets/keys?password_dir=/run/secrets/passwords
    keystore:/run/secrets/owner.json?password_file=/run/secrets/password

* A directory's keystores are its files, whatever their name, but for ``*.txt`` and ``*.pass`` (passwords may lie beside
  them), ``password_file`` itself, and what begins with a dot. Directories in it are not entered. Symlinks are followed:
  Kubernetes mounts a secret as ``owner.json -> ..data/owner.json``, and changes it by turning ``..data`` elsewhere.
* ``password_file`` opens them all. ``password_dir`` holds one for each, named like the keystore without its ``.json``,
  or by its address (with or without ``0x``), and ``.txt`` or ``.pass``; upper and lower case are the same.
* A password is the file's bytes without one ``\n`` or ``\r\n`` at their end.
* A file whose ``address`` is not its key's is refused: it is somebody's, but not whose it says.
* What was opened once and has not changed since, file and password, is not opened again at a reload.
* Files are read and decrypted on the opening pool, never on the event loop, bounded by cores and memory.
"""

from __future__ import annotations

import asyncio
import hashlib
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
    KeystoreRefused,
    Web3Keystore,
    make_keystore,
    read_keystore,
)
from signer.adapters.keys.key_uri import KeyUri, file_uri
from signer.adapters.keys.local_key import LocalKey, new_secret
from signer.adapters.keys.new_file import write_new_file
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.passwords import OnePassword, PasswordEach, Passwords

SCHEME: Final = "keystore"


@dataclass(frozen=True, slots=True)
class FoundKeystore:
    """A keystore that was read and not yet opened."""

    path: Path
    text: bytes
    keystore: Web3Keystore


@dataclass(frozen=True, slots=True)
class _Opened:
    """A key, and what it was made of: a keyed hash of file and password, worth nothing outside of this process."""

    fingerprint: bytes
    key: LocalKey


class KeystoreBackend:
    """A ``KeyBackend`` over V3 files."""

    def __init__(self, path: Path, passwords: Passwords, *, pool: OpeningPool) -> None:
        """Name the place; nothing is read before ``load``.

        Args:
            path: a V3 file, or a directory of them.
            passwords: where their passwords are.
            pool: the threads that open them.
        """
        self._path = path
        self._passwords = passwords
        self._pool = pool
        self._fingerprint_key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._opened: dict[Path, _Opened] = {}

    @property
    def uri(self) -> str:
        """The path, as a key URI without parameters."""
        return file_uri(SCHEME, self._path)

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``."""
        survey = partial(survey_keystores, self._path, self._passwords, self._pool.memory_budget)
        found, failures = await self._pool.run(survey)
        total, done = len(found) + len(failures), len(failures)
        progress(done, total)

        async def open_one(one: FoundKeystore) -> _Opened | str:
            nonlocal done
            opened = await self._pool.run(partial(self._open, one), memory=one.keystore.memory)
            done += 1
            progress(done, total)
            return opened

        results = await asyncio.gather(*(open_one(one) for one in found))
        opened: dict[Path, _Opened] = {}
        for one, result in zip(found, results, strict=True):
            if isinstance(result, str):
                failures[file_uri(SCHEME, one.path)] = result
            else:
                opened[one.path] = result
        self._opened = opened
        return LoadedKeys([each.key for each in opened.values()], failures)

    async def close(self) -> None:
        """Forget the keys."""
        self._opened = {}

    def _open(self, found: FoundKeystore) -> _Opened | str:
        """Decrypt one keystore, or say why it cannot be; blocking.

        No exception leaves, for its frames would hold the secret.
        """
        try:
            password = self._passwords.read_for(found.path, found.keystore.address)
            fingerprint = self._fingerprint(password, found.text)
            known = self._opened.get(found.path)
            if known is not None and secrets.compare_digest(known.fingerprint, fingerprint):
                return known
            key = LocalKey(found.keystore.decrypt(password), file_uri(SCHEME, found.path))
        except KeystoreRefused as refusal:
            return str(refusal)
        except ValueError:
            return "holds no secp256k1 key"
        except Exception as exc:  # noqa: BLE001 - see above
            return f"could not be opened ({type(exc).__name__})"
        if found.keystore.address not in {None, key.address}:
            return f"says address {found.keystore.address} and holds the key of {key.address}"
        return _Opened(fingerprint, key)

    def _fingerprint(self, password: bytes, text: bytes) -> bytes:
        material = len(password).to_bytes(8) + password + text
        return hashlib.blake2b(material, key=self._fingerprint_key).digest()


def survey_keystores(
    path: Path,
    passwords: Passwords,
    memory_budget: int,
) -> tuple[list[FoundKeystore], dict[str, str]]:
    """Read every keystore, none decrypted; blocking.

    Args:
        path: a V3 file, or a directory of them.
        passwords: where their passwords are.
        memory_budget: what one may take to be opened, in bytes.

    Returns:
        Those that can be opened, as far as is known without a password; and URIs of the others, each with the reason.

    Raises:
        KeyBackendError: the place, or the passwords, cannot be read at all.
    """
    try:
        paths = _keystore_paths(path, passwords)
    except OSError as exc:
        raise KeyBackendError(
            f"the keystores {path} cannot be read ({exc.strerror}): "
            "name a V3 file, or a directory of them, that the signer's user may read",
        ) from exc
    passwords.check()
    if not paths:
        return [], {file_uri(SCHEME, path): "holds no keystore"}
    found: list[FoundKeystore] = []
    failures: dict[str, str] = {}
    for each in paths:
        try:
            with each.open("rb") as file:
                text = file.read(MAX_KEYSTORE_BYTES + 1)
            keystore = read_keystore(text)
            if keystore.memory > memory_budget:
                raise KeystoreRefused(
                    f"takes {keystore.memory >> 20} MiB to open and the budget is {memory_budget >> 20} MiB: "
                    "raise it, or encrypt the key anew with less",
                )
        except OSError as exc:
            failures[file_uri(SCHEME, each)] = f"cannot be read ({exc.strerror})"
        except KeystoreRefused as refusal:
            failures[file_uri(SCHEME, each)] = str(refusal)
        else:
            found.append(FoundKeystore(each, text, keystore))
    return found, failures


def _keystore_paths(path: Path, passwords: Passwords) -> Sequence[Path]:
    if not path.is_dir():
        path.stat()
        return [path]
    return sorted(
        each
        for each in path.iterdir()
        if not each.name.startswith(".") and not passwords.is_one(each) and not each.is_dir()
    )


def open_keystores(uri: KeyUri, resources: BackendResources) -> KeystoreBackend:
    """Make the backend of a ``keystore:`` URI.

    Raises:
        KeyUriInvalid: it names not exactly one of ``password_file`` and ``password_dir``, or something unknown.
    """
    uri.allow_only("password_file", "password_dir")
    password_file, password_dir = uri.file_parameter("password_file"), uri.file_parameter("password_dir")
    passwords: Passwords
    if password_file is not None and password_dir is None:
        passwords = OnePassword(password_file)
    elif password_dir is not None and password_file is None:
        passwords = PasswordEach(password_dir)
    else:
        raise KeyUriInvalid(f"the key URI {uri} needs one of password_file=<path> and password_dir=<path>, not both")
    return KeystoreBackend(uri.file_path(), passwords, pool=resources.opening)


def write_keystore(
    directory: Path,
    secret: bytes | None,
    password: bytes,
    *,
    kdf: Kdf = "scrypt",
    work: int | None = None,
) -> Path:
    """Write a new V3 file ``<directory>/<EIP-55 address>.json``, for its owner's eyes only (mode 0600); blocking.

    It appears whole or not at all, and takes no other file's place.

    Args:
        directory: an existing one.
        secret: the private key, 32 bytes; ``None`` to make one.
        password: not empty; the bytes that its file will hold, without a newline.
        kdf: the key derivation.
        work: scrypt's n (a power of two; 2 … 4096 is for demonstrations) or PBKDF2's iterations; ``None`` for the
            usual strength.

    Returns:
        The file.

    Raises:
        FileExistsError: the directory has a file of that name.
        OSError: it cannot be written to.
        ValueError: the password is empty or ends with a newline, or the key is none.
    """
    if not password or password.endswith(b"\n"):
        raise ValueError("a keystore's password is not empty and does not end with a newline")
    secret = new_secret() if secret is None else secret
    address = LocalKey(secret, "").address
    text = make_keystore(secret, password, kdf=kdf, work=work)
    del secret, password  # what fails from here on has a traceback, and that shows variables where it is asked to
    path = directory / f"{address}.json"
    write_new_file(path, text)
    return path
