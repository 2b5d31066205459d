"""The keystore backend over real files: which files, which passwords, failures, reloads, secrecy."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from eth_account import Account

from signer.adapters.keys.backend import BackendResources, DuplicateOwner, KeyBackendError, LoadedKeys
from signer.adapters.keys.encrypted_json import Kdf
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.application.ports import KeyFailure
from tests.support.fakes.keys import opening_pool

T = TypeVar("T")
PASSWORD = b"hunter2 hunter3"
SECRETS = [bytes([number]) * 32 for number in range(1, 6)]
OWNERS = [Account.from_key(secret).address for secret in SECRETS]


@pytest.fixture
def pool() -> Iterator[OpeningPool]:
    """Threads for opening."""
    pool = opening_pool()
    yield pool
    pool.close()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory for keystores."""
    directory = tmp_path / "keys"
    directory.mkdir()
    return directory


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """The password of them all."""
    path = tmp_path / "password"
    path.write_bytes(PASSWORD)
    return path


def write(directory: Path, number: int = 0, password: bytes = PASSWORD) -> Path:
    """Write one light keystore."""
    return write_keystore(directory, SECRETS[number], password, work=2)


def write_anew(directory: Path, number: int) -> None:
    """Write one light keystore in its own place again."""
    (directory / f"{OWNERS[number]}.json").unlink()
    write(directory, number)


def change_password(path: Path) -> None:
    """Write a password as long as the right one, which opens nothing."""
    path.write_bytes(b"x" * len(PASSWORD))


def make_anonymous(path: Path) -> None:
    """Take the address out of a keystore."""
    document = json.loads(path.read_text())
    del document["address"]
    path.write_text(json.dumps(document))


async def load(uri: str, pool: OpeningPool) -> LoadedKeys:
    """Load a backend once."""
    return await backend_for(uri, BackendResources(pool)).load(lambda _done, _total: None)


def owners(loaded: LoadedKeys) -> list[str]:
    """Name whose keys there are."""
    return [key.address for key in loaded.keys]


# --- Which files are keystores ----------------------------------------------------------------------------------------


async def test_uri_may_name_a_single_file(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """The key's URI is the file's, without parameters."""
    path = write(keys)
    loaded = await load(f"keystore:{path}?password_file={password_file}", pool)
    assert owners(loaded) == [OWNERS[0]]
    assert loaded.keys[0].uri == f"keystore:{path}"


async def test_kubernetes_symlinks_are_followed(tmp_path: Path, pool: OpeningPool) -> None:
    """A mounted secret (``owner.json -> ..data/owner.json``, ``..data -> ..2026_…``) loads, each key once."""
    mount = tmp_path / "mount"
    version = mount / "..2026_11_22_12_00_00.123456789"
    version.mkdir(parents=True)
    write(version, 0).rename(version / "owner-0.json")
    write(version, 1).rename(version / "owner-1.json")
    (version / "password.txt").write_bytes(PASSWORD + b"\n")
    (mount / "..data").symlink_to(version.name)
    for name in ("owner-0.json", "owner-1.json", "password.txt"):
        (mount / name).symlink_to(f"..data/{name}")
    loaded = await load(f"keystore:{mount}?password_file={mount}/password.txt", pool)
    assert owners(loaded) == OWNERS[:2]
    assert not loaded.failures


async def test_reload_sees_kubernetes_update(tmp_path: Path, password_file: Path, pool: OpeningPool) -> None:
    """When ``..data`` points to a new version, a reload loads that version."""
    mount = tmp_path / "mount"
    for number, version in enumerate(("..v1", "..v2")):
        (mount / version).mkdir(parents=True)
        write(mount / version, number).rename(mount / version / "owner.json")
    (mount / "..data").symlink_to("..v1")
    (mount / "owner.json").symlink_to("..data/owner.json")
    ring = LoadedKeyRing([backend_for(f"keystore:{mount}?password_file={password_file}", BackendResources(pool))])
    await ring.load()
    (mount / "..data_tmp").symlink_to("..v2")
    (mount / "..data_tmp").rename(mount / "..data")
    report = await ring.reload()
    assert (report.added, report.removed) == ((OWNERS[1],), (OWNERS[0],))


async def test_key_stays_when_keystore_is_replaced_before_its_password(
    keys: Path, tmp_path: Path, password_file: Path, pool: OpeningPool
) -> None:
    """Two volumes are updated one after the other; another file is garbage, which changes nothing for the others."""
    ring = LoadedKeyRing([backend_for(f"keystore:{keys}?password_file={password_file}", BackendResources(pool))])
    first, second = write(keys, 0), write(keys, 1)
    await ring.load()
    first.unlink()
    write(keys, 0, b"the next password").rename(keys / "renamed.json")
    second.write_bytes(b"\x00garbage")
    report = await ring.reload()
    assert (report.removed, report.kept) == ((), tuple(sorted(OWNERS[:2])))
    assert sorted(uri.rpartition("/")[2] for uri in report.failed) == [second.name, "renamed.json"]
    (tmp_path / "password").write_bytes(b"the next password")
    report = await ring.reload()
    assert (report.unchanged, report.kept) == (tuple(sorted(OWNERS[:2])), (OWNERS[1],))
    assert ring.status().is_ready


async def test_owners_of_keystores_that_cannot_be_opened_are_named(
    keys: Path, password_file: Path, pool: OpeningPool
) -> None:
    """By the address in the file or, if it has none or is garbage, by the address at the end of its name."""
    write(keys, 0, b"another password").rename(keys / "a.json")
    (keys / f"{OWNERS[1]}.json").write_text("garbage")
    (keys / f"UTC--2026-11-22T12-00-00.000000000Z--{OWNERS[2][2:].lower()}").write_text("{}")
    without_address = json.loads(write(keys, 3, b"another password").read_text())
    del without_address["address"]
    (keys / f"{OWNERS[3]}.json").write_text(json.dumps(without_address))
    (keys / "nobody.json").write_text("garbage")
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert (loaded.keys, len(loaded.failures), loaded.named) == ([], 5, frozenset(OWNERS[:4]))


async def test_passwords_and_dotfiles_are_not_keystores(keys: Path, pool: OpeningPool) -> None:
    """Files without a suffix (geth's) are keystores; directories are not."""
    write(keys, 0).rename(keys / f"UTC--2026-11-22T12-00-00.000000000Z--{OWNERS[0][2:].lower()}")
    write(keys, 1).rename(keys / "key.keystore")
    write(keys, 2).rename(keys / ".hidden.json")
    (keys / "sub").mkdir()
    write(keys / "sub", 3)
    (keys / "notes.TXT").write_text("no keystore")
    (keys / "other.pass").write_text("no keystore")
    (keys / "the-password").write_bytes(PASSWORD)
    loaded = await load(f"keystore:{keys}?password_file={keys}/the-password", pool)
    assert sorted(owners(loaded)) == sorted(OWNERS[:2])
    assert not loaded.failures


async def test_empty_directory_is_a_failure(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """The service starts, the directory may be filled later, and it is not ready until then."""
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert loaded.failures == {f"keystore:{keys}": "has no keystore"}


# --- Passwords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n"])
async def test_one_newline_is_removed_from_password(keys: Path, tmp_path: Path, tail: bytes, pool: OpeningPool) -> None:
    """An editor's newline is not part of the password."""
    write(keys)
    (tmp_path / "pw").write_bytes(PASSWORD + tail)
    assert owners(await load(f"keystore:{keys}?password_file={tmp_path}/pw", pool)) == [OWNERS[0]]


@pytest.mark.parametrize("tail", [b" ", b" \n", b"\t\r\n"])
async def test_nothing_else_is_removed_from_password(
    keys: Path, tmp_path: Path, tail: bytes, pool: OpeningPool
) -> None:
    """Spaces belong to the password, which is then wrong."""
    path = write(keys)
    (tmp_path / "pw").write_bytes(PASSWORD + tail)
    loaded = await load(f"keystore:{keys}?password_file={tmp_path}/pw", pool)
    assert loaded.failures == {f"keystore:{path}": "the password does not open it"}


@pytest.mark.parametrize(
    "name",
    [
        "Treasury.txt",
        "treasury.pass",
        f"{OWNERS[0]}.txt",
        f"{OWNERS[0][2:].lower()}.txt",
        f"{OWNERS[0][2:].upper()}.PASS",
        f"{OWNERS[0].lower()}.pass",
    ],
)
async def test_password_dir_finds_password_by_name_or_address(
    keys: Path, tmp_path: Path, name: str, pool: OpeningPool
) -> None:
    """By the keystore's name or its address, in any letter case."""
    write(keys).rename(keys / "treasury.json")
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    (passwords / name).write_bytes(PASSWORD + b"\n")
    assert owners(await load(f"keystore:{keys}?password_dir={passwords}", pool)) == [OWNERS[0]]


async def test_password_dir_has_one_password_for_each_keystore(keys: Path, pool: OpeningPool) -> None:
    """Passwords may be beside the keystores; a keystore without one is a failure that says so."""
    for number in range(3):
        path = write(keys, number, PASSWORD + bytes([0x30 + number]))
        if number < 2:
            path.with_suffix(".txt").write_bytes(PASSWORD + bytes([0x30 + number]))
    loaded = await load(f"keystore:{keys}?password_dir={keys}", pool)
    assert sorted(owners(loaded)) == sorted(OWNERS[:2])
    [(uri, reason)] = loaded.failures.items()
    assert uri == f"keystore:{keys}/{OWNERS[2]}.json"
    assert reason == f"has no password: {keys} has no file {OWNERS[2].lower()}.txt"


async def test_password_dir_uses_name_if_keystore_has_no_address(keys: Path, pool: OpeningPool) -> None:
    """The password of such a keystore is not found by address."""
    for number, name in enumerate(("a", "b")):
        path = write(keys, number)
        make_anonymous(path)
        path.rename(keys / f"{name}.json")
    (keys / "a.pass").write_bytes(PASSWORD)
    (keys / f"{OWNERS[1]}.txt").write_bytes(PASSWORD)
    loaded = await load(f"keystore:{keys}?password_dir={keys}", pool)
    assert owners(loaded) == [OWNERS[0]]
    assert list(loaded.failures) == [f"keystore:{keys}/b.json"]


async def test_load_fails_when_path_or_password_is_unreadable(
    keys: Path, tmp_path: Path, password_file: Path, pool: OpeningPool
) -> None:
    """Keystores, password file or password directory missing, or a password that is too long."""
    write(keys)
    (tmp_path / "book").write_bytes(bytes(5000))
    for uri, reason in (
        (f"keystore:{tmp_path}/nowhere?password_file={password_file}", "No such file"),
        (f"keystore:{keys}?password_file={tmp_path}/nowhere", "No such file"),
        (f"keystore:{keys}?password_file={keys}", "Is a directory"),
        (f"keystore:{keys}?password_dir={tmp_path}/nowhere", "No such file"),
        (f"keystore:{keys}?password_dir={password_file}", "Not a directory"),
        (f"keystore:{keys}?password_file={tmp_path}/book", "is too long"),
    ):
        with pytest.raises(KeyBackendError, match=reason):
            await load(uri, pool)


# --- Failures ---------------------------------------------------------------------------------------------------------


async def test_each_failure_has_its_reason_and_cause(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """The other keystores load."""
    good = write(keys, 0)
    write(keys, 1, b"another password").rename(keys / "wrong-password.json")
    (keys / "broken.json").write_text('{"crypto": ')
    (keys / "huge.json").write_bytes(b" " * 70_000)
    (keys / "dangling.json").symlink_to(keys / "nowhere")
    (keys / "loop.json").symlink_to(keys / "loop.json")
    foreign = json.loads(write(keys, 2).read_text())
    (keys / f"{OWNERS[2]}.json").unlink()
    (keys / "foreign.json").write_text(json.dumps({**foreign, "address": OWNERS[3][2:]}))
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert [key.uri for key in loaded.keys] == [f"keystore:{good}"]
    reasons = {Path(uri).name: reason for uri, reason in loaded.failures.items()}
    assert reasons == {
        "wrong-password.json": "the password does not open it",
        "broken.json": "is not a keystore: it is not a JSON object",
        "huge.json": "is too long (over 65536 bytes): name another file",
        "dangling.json": "cannot be read (No such file or directory)",
        "loop.json": "cannot be read (Too many levels of symbolic links)",
        "foreign.json": f"has the address {OWNERS[3]} and the key of {OWNERS[2]}",
    }
    causes = {name: KeyFailure.cause_of(reason) for name, reason in reasons.items()}
    assert causes == {
        "wrong-password.json": "authentication",
        "broken.json": "damaged",
        "huge.json": "error",
        "dangling.json": "unreachable",
        "loop.json": "unreachable",
        "foreign.json": "damaged",
    }


async def test_keystore_with_invalid_key_is_refused(
    keys: Path, password_file: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that decrypts to zero holds no key."""
    write(keys)
    monkeypatch.setattr("signer.adapters.keys.encrypted_json.decode_keyfile_json", lambda *_: bytes(32))
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert list(loaded.failures.values()) == ["does not hold a secp256k1 key"]


async def test_unexpected_error_is_a_failure_without_its_text(
    keys: Path, password_file: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the class name is shown, because the text could contain anything."""

    def fail(*_: object) -> bytes:
        raise MemoryError(PASSWORD)

    write(keys)
    monkeypatch.setattr("signer.adapters.keys.encrypted_json.decode_keyfile_json", fail)
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert list(loaded.failures.values()) == ["could not be opened (MemoryError)"]


async def test_keystore_beyond_memory_budget_is_refused(keys: Path, password_file: Path) -> None:
    """The reason says how much memory it needs."""
    write_keystore(keys, SECRETS[0], PASSWORD, work=4096)
    pool = opening_pool(memory_budget=2 * 1024**2)
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    pool.close()
    [reason] = loaded.failures.values()
    assert reason.startswith("needs 4 MiB to open and the budget is 2 MiB")


async def test_opening_reserves_memory_of_key_derivation(keys: Path, password_file: Path) -> None:
    """The pool gets the number that the keystore needs."""

    class WatchedPool(OpeningPool):
        asked: ClassVar[list[int]] = []

        async def run(self, work: Callable[[], T], *, memory: int = 0) -> T:
            self.asked.append(memory)
            return await super().run(work, memory=memory)

    write_keystore(keys, SECRETS[0], PASSWORD, work=4096)
    write_keystore(keys, SECRETS[1], PASSWORD, kdf="pbkdf2", work=2)
    pool = WatchedPool(memory_budget=1 << 30, threads=0)
    await load(f"keystore:{keys}?password_file={password_file}", pool)
    pool.close()
    assert sorted(pool.asked) == [0, 0, 128 * 8 * (4096 + 1)]


async def test_keystore_without_address_loads(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """The format lets the address be omitted, for privacy; the key tells it."""
    make_anonymous(write(keys))
    assert owners(await load(f"keystore:{keys}?password_file={password_file}", pool)) == [OWNERS[0]]


# --- Reload -----------------------------------------------------------------------------------------------------------


async def test_unchanged_keystore_is_not_decrypted_again(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """A reload decrypts keystores that are new, or whose file or password has changed."""
    write(keys, 0)
    write(keys, 1)
    backend = backend_for(f"keystore:{keys}?password_file={password_file}", BackendResources(pool))
    first = await backend.load(lambda _done, _total: None)
    write_anew(keys, 1)
    write(keys, 2)
    second = await backend.load(lambda _done, _total: None)
    before, after = ({key.address: key for key in loaded.keys} for loaded in (first, second))
    assert after[OWNERS[0]] is before[OWNERS[0]]
    assert after[OWNERS[1]] is not before[OWNERS[1]]
    assert sorted(after) == sorted(OWNERS[:3])
    change_password(password_file)
    third = await backend.load(lambda _done, _total: None)
    assert not third.keys
    assert set(third.failures.values()) == {"the password does not open it"}


# --- Writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_new_keystore_has_mode_0600(keys: Path, kdf: Kdf) -> None:
    """Whatever the umask is; the file is named after its address, and no other file remains."""
    umask = os.umask(0)
    try:
        path = write_keystore(keys, None, PASSWORD, kdf=kdf, work=2)
    finally:
        os.umask(umask)
    assert list(keys.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = Account.decrypt(json.loads(path.read_text()), PASSWORD.decode())
    assert path.name == f"{Account.from_key(secret).address}.json"


def test_new_keys_differ(keys: Path) -> None:
    """Two new keys are two owners."""
    assert write_keystore(keys, None, PASSWORD, work=2) != write_keystore(keys, None, PASSWORD, work=2)


def test_existing_keystore_is_not_overwritten(keys: Path) -> None:
    """Writing the same owner again fails and leaves the first file unchanged."""
    path = write(keys)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write(keys, 0, b"another")
    assert path.read_bytes() == before
    assert list(keys.iterdir()) == [path]


@pytest.mark.parametrize("password", [b"", b"x\n"])
def test_password_that_a_file_cannot_hold_is_refused(keys: Path, password: bytes) -> None:
    """An empty password, or one with a newline at the end, would not be read back."""
    with pytest.raises(ValueError, match="password"):
        write(keys, 0, password)
    assert not list(keys.iterdir())


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, bytes(31), b"\x00" + SECRETS[0]])
def test_invalid_private_key_is_not_written(keys: Path, secret: bytes) -> None:
    """Zero, n and above, and other lengths are not keys."""
    with pytest.raises(ValueError, match=r"secp256k1|scalar"):
        write_keystore(keys, secret, PASSWORD, work=2)
    assert not list(keys.iterdir())


# --- Secrecy ----------------------------------------------------------------------------------------------------------


async def test_key_cannot_be_pickled_or_copied(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """With any protocol of pickle, and with ``copy``."""
    write(keys)
    [key] = (await load(f"keystore:{keys}?password_file={password_file}", pool)).keys
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(key, protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            duplicate(key)


async def test_traceback_with_variables_shows_no_secret(
    keys: Path, tmp_path: Path, password_file: Path, pool: OpeningPool
) -> None:
    """An error while keys are loaded contains neither key nor password in any frame."""
    second = tmp_path / "second"
    second.mkdir()
    write(keys)
    write(second)
    uris = [f"keystore:{directory}?password_file={password_file}" for directory in (keys, second)]
    ring = LoadedKeyRing([backend_for(uri, BackendResources(pool)) for uri in uris])
    with pytest.raises(DuplicateOwner) as refused:
        await ring.load()
    lines = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
    assert OWNERS[0] in lines
    for secret in (SECRETS[0], PASSWORD):
        assert secret.hex() not in lines
        assert repr(secret)[2:-1] not in lines


def test_failed_write_shows_no_secret(keys: Path) -> None:
    """An error of the file system contains neither key nor password in any frame."""
    write(keys)
    with pytest.raises(FileExistsError) as refused:
        write_keystore(keys, SECRETS[0], PASSWORD, work=2)
    lines = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
    assert OWNERS[0] in lines
    for secret in (SECRETS[0], PASSWORD):
        assert repr(secret)[2:-1] not in lines
