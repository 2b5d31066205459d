r"""The ``hd:`` backend: many keys that BIP-32 derives from one encrypted seed.

::

    hd:/run/secrets/seed.json?password_file=/run/secrets/password&path=m/44'/60'/0'/0&indexes=0-99999
    hd:/run/secrets/seed.json?password_file=/run/secrets/password&indexes_file=/etc/signer/indexes

* The default path is MetaMask's layout, ``m/44'/60'/0'/0/*``. Nothing in a path needs escaping in a URI (RFC 3986).
* ``indexes_file`` holds the list of indexes and is read at every reload, so owners are added without a new URI.
* Addresses are derived off the event loop, a few hundred at a time, and kept. A private key is derived for each
  signature. The branch's parent node, from which all its keys can be derived, stays in memory.
* A reload does not decrypt the seed again if file and password are unchanged, and derives new indexes only.
"""

from __future__ import annotations

import secrets
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from signer.adapters.keys.backend import BackendResources, KeyBackendError, KeyUriInvalid, LoadedKeys, Progress
from signer.adapters.keys.encrypted_json import MAX_KEYSTORE_BYTES, WORK_FOR_KDF, EncryptedSecret
from signer.adapters.keys.hd.bip32 import ExtendedKey
from signer.adapters.keys.hd.branch import Branch, HdKey
from signer.adapters.keys.hd.path import DEFAULT_PATH, DerivationPath, IndexRanges
from signer.adapters.keys.hd.seed_file import encrypt_seed, parse_seed_file
from signer.adapters.keys.key_uri import KeyUri, file_uri
from signer.adapters.keys.many_keys import FREEZE_EVERY, freeze
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.secret_files import (
    KeyFileError,
    fingerprint_of,
    read_file,
    read_password,
    text_of,
    write_new_file,
)
from signer.application.ports import KeyFailure

SCHEME: Final = "hd"
_BATCH: Final = 500
_MAX_INDEXES_BYTES: Final = 1 << 20


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
        """Create the backend; nothing is read before ``load``. ``indexes`` may be the file that lists them."""
        self._seed = seed
        self._password = password
        self._path = path
        self._indexes = indexes
        self._pool = pool
        self._branch: Branch | None = None
        self._keys: dict[int, HdKey] = {}

    @property
    def uri(self) -> str:
        """The seed's file and the path."""
        return f"{file_uri(SCHEME, self._seed)}?path={self._path}"

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``."""
        text, seed, indexes = await self._pool.run(self._read_files)
        known = self._branch
        branch = await self._pool.run(partial(self._open, text, seed), memory=seed.memory)
        if isinstance(branch, str):
            raise KeyBackendError(f"the seed {self._seed} {branch}", KeyFailure.cause_of(branch))
        keys = await self._pool.run(partial(self._known_keys, indexes)) if branch is known else {}
        failures: dict[str, str] = {}
        progress(len(keys), len(indexes))
        new_indexes = (index for index in indexes if index not in keys)
        batches = iter(lambda: tuple(islice(new_indexes, _BATCH)), ())
        for number, batch in enumerate(batches, start=1):
            owners: list[str | None] = await self._pool.run(partial(list, map(branch.address, batch)))
            for index, owner in zip(batch, owners, strict=True):
                if owner is None:
                    failures[branch.uri(index)] = "does not exist: BIP-32 has no key at this index"
                else:
                    keys[index] = HdKey(owner, branch, index)
            progress(len(keys) + len(failures), len(indexes))
            if not number % (FREEZE_EVERY // _BATCH):
                freeze()
        self._branch, self._keys = branch, keys
        return LoadedKeys(tuple(keys.values()), failures)

    async def close(self) -> None:
        """Release the seed; no load may run."""
        self._branch = None
        self._keys = {}

    def _read_files(self) -> tuple[bytearray, EncryptedSecret, IndexRanges]:
        """Read the seed file and the indexes; blocking."""
        try:
            text = read_file(self._seed, MAX_KEYSTORE_BYTES)
            seed = parse_seed_file(text)
            seed.check_memory(self._pool.memory_budget)
        except KeyFileError as refusal:
            raise KeyBackendError(f"the seed {self._seed} {refusal}", refusal.cause) from refusal
        indexes = self._indexes
        if isinstance(indexes, Path):
            try:
                indexes = IndexRanges.parse(text_of(read_file(indexes, _MAX_INDEXES_BYTES)))
            except KeyFileError as refusal:
                raise KeyBackendError(f"the list of indexes {indexes} {refusal}", refusal.cause) from refusal
            except ValueError as exc:
                raise KeyBackendError(f"the indexes in {indexes} {exc}") from exc
        return text, seed, indexes

    def _open(self, text: bytearray, seed: EncryptedSecret) -> Branch | str:
        """Return the branch, or the reason why the seed cannot be opened; blocking.

        It raises nothing, because the traceback of an exception would keep the local variables alive, and so the
        secret.
        """
        try:
            password = read_password(self._password)
            fingerprint = fingerprint_of(password, text)
            if self._branch is not None and secrets.compare_digest(self._branch.fingerprint, fingerprint):
                return self._branch
            branch = Branch.of_seed(seed.decrypt(password), self._path, file_uri(SCHEME, self._seed), fingerprint)
        except KeyFileError as refusal:
            return KeyFailure(f"cannot be opened: {refusal}", refusal.cause)
        except Exception as exc:  # noqa: BLE001 - see above
            return f"could not be opened ({type(exc).__name__})"
        return branch or f"has no key at {self._path} (BIP-32): use another path"

    def _known_keys(self, indexes: IndexRanges) -> dict[int, HdKey]:
        """Return the keys that the last load derived; blocking."""
        return {index: self._keys[index] for index in indexes if index in self._keys}


def create_hd_backend(uri: KeyUri, resources: BackendResources) -> HdBackend:
    """Create the backend of an ``hd:`` URI.

    Raises:
        KeyUriInvalid: a parameter is missing, unknown or invalid.
    """
    uri.allow_only("password_file", "path", "indexes", "indexes_file")
    password = uri.file_parameter("password_file")
    if password is None:
        raise KeyUriInvalid(f"the key URI {uri} needs password_file=<path>")
    try:
        path = DerivationPath.parse(uri.query.get("path", DEFAULT_PATH))
    except ValueError as exc:
        raise KeyUriInvalid(f"the path of the key URI {uri} {exc}") from exc
    indexes: IndexRanges | Path | None = uri.file_parameter("indexes_file")
    if (indexes is None) is ("indexes" not in uri.query):
        raise KeyUriInvalid(f"the key URI {uri} needs either indexes=0-99 or indexes_file=<path>")
    if indexes is None:
        try:
            indexes = IndexRanges.parse(uri.query["indexes"])
        except ValueError as exc:
            raise KeyUriInvalid(f"the indexes of the key URI {uri} {exc}") from exc
    return HdBackend(uri.file_path(), password, path, indexes, pool=resources.opening)


def write_seed(path: Path, seed: bytes, password: bytes, *, work: int = WORK_FOR_KDF["scrypt"]) -> None:
    """Create a seed file with mode 0600; blocking. ``work`` is scrypt's n.

    Raises:
        FileExistsError: the file exists already.
        OSError: the file cannot be written.
        ValueError: the password is empty or ends with a newline, or the seed is not 16 to 64 bytes.
    """
    if not password or password.endswith(b"\n"):
        raise ValueError("a seed's password must not be empty and must not end with a newline")
    ExtendedKey.from_seed(seed)  # raises ValueError if the seed has another length
    text = encrypt_seed(seed, password, work=work)
    del seed, password  # a traceback of a later failure could show local variables
    write_new_file(path, text)
