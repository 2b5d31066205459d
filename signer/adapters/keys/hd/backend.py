r"""``hd:`` one encrypted seed and the many keys that BIP-32 grows out of it.

::

    hd:/run/secrets/seed.json?password_file=/run/secrets/password&path=m/44'/60'/0'/0&indexes=0-99999
    hd:/run/secrets/seed.json?password_file=/run/secrets/password&indexes_file=/etc/signer/indexes

* The file is ``_hd_seed_file``'s; its password is the bytes of ``password_file`` without one newline at their end.
* ``path`` and the indexes are ``_hd_path``'s: by default MetaMask's layout, ``m/44'/60'/0'/0/*``. Nothing in it needs
  escaping in a URI (``'`` and ``*`` are RFC 3986's own); for a shell, ``h`` is as good as ``'``.
* ``indexes_file`` is the same list in a file, read anew at every reload: owners are added without a new URI.
* Addresses are derived off the event loop, a few hundred at a time, and kept. Private keys are not: each is derived
  when its owner's signature is asked for (4 µs), and gone after it. What stays is the node above, which can make all of
  them: BIP-32's tree protects nothing against whoever reads this process's memory.
* What was opened once and has not changed since, file and password, is not opened again at a reload, and only indexes
  that are new are derived.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from signer.adapters.keys.backend import BackendResources, KeyBackendError, KeyUriInvalid, LoadedKeys, Progress
from signer.adapters.keys.encrypted_json import MAX_KEYSTORE_BYTES, Kdf, KeystoreRefused
from signer.adapters.keys.hd.bip32 import ExtendedKey
from signer.adapters.keys.hd.branch import Branch, HdKey, addresses
from signer.adapters.keys.hd.path import DerivationPath, IndexRanges
from signer.adapters.keys.hd.seed_file import SeedFile, make_seed_file, read_seed_file
from signer.adapters.keys.key_uri import KeyUri, file_uri
from signer.adapters.keys.new_file import write_new_file
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.passwords import read_password

SCHEME: Final = "hd"
_DERIVED_AT_ONCE: Final = 500
_MAX_INDEXES_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, repr=False)
class _Found:
    """What was read and not yet opened."""

    text: bytes
    seed_file: SeedFile
    indexes: IndexRanges


@dataclass(frozen=True, slots=True)
class _Opened:
    """A branch, and what it was made of: a keyed hash of file and password, worth nothing outside of this process."""

    fingerprint: bytes
    branch: Branch


class HdBackend:
    """A ``KeyBackend`` over one seed."""

    def __init__(
        self,
        seed: Path,
        password: Path,
        path: DerivationPath,
        indexes: IndexRanges | Path,
        *,
        pool: OpeningPool,
    ) -> None:
        """Name the places; nothing is read before ``load``.

        Args:
            seed: the seed's file.
            password: its password's.
            path: where the keys are.
            indexes: which of them there are, or the file that says so.
            pool: the threads that open and derive.
        """
        self._seed = seed
        self._password = password
        self._path = path
        self._indexes = indexes
        self._pool = pool
        self._fingerprint_key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._opened: _Opened | None = None
        self._keys: dict[int, HdKey] = {}

    @property
    def uri(self) -> str:
        """The seed's file and the path."""
        return f"{file_uri(SCHEME, self._seed)}?path={self._path}"

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``."""
        found = await self._pool.run(self._survey)
        opened = await self._pool.run(partial(self._open, found), memory=found.seed_file.memory)
        if isinstance(opened, str):
            raise KeyBackendError(f"the seed {self._seed} {opened}")
        keys = await self._pool.run(partial(self._known, opened, found.indexes))
        failures: dict[str, str] = {}
        progress(len(keys), len(found.indexes))
        unknown = (index for index in found.indexes if index not in keys)
        while some := tuple(islice(unknown, _DERIVED_AT_ONCE)):
            owners = await self._pool.run(partial(addresses, opened.branch, some))
            for index, owner in zip(some, owners, strict=True):
                if owner is None:
                    failures[opened.branch.uri(index)] = "does not exist: BIP-32 has no key at this index"
                else:
                    keys[index] = HdKey(opened.branch, index, owner)
            progress(len(keys) + len(failures), len(found.indexes))
        self._opened, self._keys = opened, keys
        return LoadedKeys(tuple(keys.values()), failures)

    async def close(self) -> None:
        """Forget the seed."""
        self._opened = None
        self._keys = {}

    def _survey(self) -> _Found:
        """Read what is there, nothing decrypted; blocking."""
        text = _read(self._seed, MAX_KEYSTORE_BYTES, "the seed")
        try:
            seed_file = read_seed_file(text)
        except KeystoreRefused as refusal:
            raise KeyBackendError(f"the seed {self._seed} {refusal}") from refusal
        if seed_file.memory > self._pool.memory_budget:
            raise KeyBackendError(
                f"the seed {self._seed} takes {seed_file.memory >> 20} MiB to open and the budget is "
                f"{self._pool.memory_budget >> 20} MiB: raise it, or encrypt the seed anew with less",
            )
        indexes = self._indexes
        if isinstance(indexes, Path):
            listed = _read(indexes, _MAX_INDEXES_BYTES, "the list of indexes")
            try:
                indexes = IndexRanges.parse(listed.decode("ascii"))
            except ValueError as exc:
                raise KeyBackendError(f"the indexes in {indexes} {_reason(exc)}") from exc
        return _Found(text, seed_file, indexes)

    def _open(self, found: _Found) -> _Opened | str:
        """Decrypt the seed, or say why it cannot be; blocking.

        No exception leaves, for its frames would hold the secret.
        """
        try:
            password = read_password(self._password)
            material = len(password).to_bytes(8) + password + found.text
            fingerprint = hashlib.blake2b(material, key=self._fingerprint_key).digest()
            known = self._opened
            if known is not None and secrets.compare_digest(known.fingerprint, fingerprint):
                return known
            master = ExtendedKey.from_seed(found.seed_file.decrypt(password))
        except KeystoreRefused as refusal:
            return f"cannot be opened: {refusal}"
        except Exception as exc:  # noqa: BLE001 - see above
            return f"could not be opened ({type(exc).__name__})"
        parent = master.descendant(self._path.before)
        if parent is None:
            return f"has no key at {self._path} (BIP-32): use another account"
        return _Opened(fingerprint, Branch(parent, self._path, file_uri(SCHEME, self._seed)))

    def _known(self, opened: _Opened, indexes: IndexRanges) -> dict[int, HdKey]:
        """Give the keys that are known from the last load; blocking."""
        if self._opened is None or self._opened.branch is not opened.branch:
            return {}
        return {index: self._keys[index] for index in indexes if index in self._keys}


def open_hd(uri: KeyUri, resources: BackendResources) -> HdBackend:
    """Make the backend of an ``hd:`` URI.

    Raises:
        KeyUriInvalid: a parameter is missing, unknown or not what it should be.
    """
    uri.allow_only("password_file", "path", "indexes", "indexes_file")
    password = uri.file_parameter("password_file")
    if password is None:
        raise KeyUriInvalid(f"the key URI {uri} needs password_file=<path>")
    try:
        path = DerivationPath.parse(uri.query["path"]) if "path" in uri.query else DerivationPath.parse()
    except ValueError as exc:
        raise KeyUriInvalid(f"the path of the key URI {uri} {exc}") from exc
    indexes: IndexRanges | Path | None = uri.file_parameter("indexes_file")
    if (indexes is None) is ("indexes" not in uri.query):
        raise KeyUriInvalid(f"the key URI {uri} needs one of indexes=0-99 and indexes_file=<path>, not both")
    if indexes is None:
        try:
            indexes = IndexRanges.parse(uri.query["indexes"])
        except ValueError as exc:
            raise KeyUriInvalid(f"the indexes of the key URI {uri} {exc}") from exc
    return HdBackend(uri.file_path(), password, path, indexes, pool=resources.opening)


def write_seed(path: Path, seed: bytes, password: bytes, *, kdf: Kdf = "scrypt", work: int | None = None) -> None:
    """Write a seed's file, for its owner's eyes only (mode 0600); blocking.

    It appears whole or not at all, and takes no other file's place.

    Args:
        path: the file to make.
        seed: 16 to 64 bytes; ``bip39.seed_of_mnemonic`` gives 64.
        password: not empty; the bytes that its file will hold, without a newline.
        kdf: the key derivation.
        work: scrypt's n (a power of two; 2 … 4096 is for demonstrations) or PBKDF2's iterations; ``None`` for the
            usual strength.

    Raises:
        FileExistsError: the file is there already.
        OSError: it cannot be written.
        ValueError: the password is empty or ends with a newline, or the seed is none.
    """
    if not password or password.endswith(b"\n"):
        raise ValueError("a seed's password is not empty and does not end with a newline")
    ExtendedKey.from_seed(seed)
    text = make_seed_file(seed, password, kdf=kdf, work=work)
    del seed, password  # what fails from here on has a traceback, and that shows variables where it is asked to
    write_new_file(path, text)


def _read(path: Path, most: int, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(most + 1)
    except OSError as exc:
        raise KeyBackendError(
            f"{what} {path} cannot be read ({exc.strerror}): name a file that the signer's user may read",
        ) from exc
    if len(text) > most:
        raise KeyBackendError(f"{what} {path} is over {most} bytes")
    return text


def _reason(exc: ValueError) -> str:
    return "are no ASCII text" if isinstance(exc, UnicodeDecodeError) else str(exc)
