"""The keystore backend over real files: what is a keystore, whose password is whose, what is refused and why."""

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


# --- What is a keystore -----------------------------------------------------------------------------------------------


async def test_a_single_file(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """A URI may name one file; the key's URI is that file's, without the password's."""
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


async def test_kubernetes_update_is_seen_by_a_reload(tmp_path: Path, password_file: Path, pool: OpeningPool) -> None:
    """When ``..data`` is turned to a new version, a reload gives what that holds."""
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


async def test_names_do_not_matter_but_for_passwords_and_dots(keys: Path, pool: OpeningPool) -> None:
    """Files without an ending (geth's) are keystores; dotfiles, passwords and directories are not."""
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


async def test_an_empty_directory_is_a_failure(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """A directory without a keystore starts, may be filled later, and is not ready meanwhile."""
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert loaded.failures == {f"keystore:{keys}": "has no keystore"}


# --- Passwords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n"])
async def test_one_newline_is_stripped(keys: Path, tmp_path: Path, tail: bytes, pool: OpeningPool) -> None:
    """An editor's newline is not part of the password."""
    write(keys)
    (tmp_path / "pw").write_bytes(PASSWORD + tail)
    assert owners(await load(f"keystore:{keys}?password_file={tmp_path}/pw", pool)) == [OWNERS[0]]


@pytest.mark.parametrize("tail", [b"\n\n", b" ", b"\r", b" \n"])
async def test_nothing_else_is_stripped(keys: Path, tmp_path: Path, tail: bytes, pool: OpeningPool) -> None:
    """A second newline, blanks and the like belong to the password, which is then a wrong one."""
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
async def test_password_dir_by_name_or_address(keys: Path, tmp_path: Path, name: str, pool: OpeningPool) -> None:
    """A password is found by the keystore's name, or by its address, in any case."""
    write(keys).rename(keys / "treasury.json")
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    (passwords / name).write_bytes(PASSWORD + b"\n")
    assert owners(await load(f"keystore:{keys}?password_dir={passwords}", pool)) == [OWNERS[0]]


async def test_password_dir_has_one_each(keys: Path, pool: OpeningPool) -> None:
    """Each keystore has a password of its own, which may lie beside it; one without is a failure that says so."""
    for number in range(3):
        path = write(keys, number, PASSWORD + bytes([0x30 + number]))
        if number < 2:
            path.with_suffix(".txt").write_bytes(PASSWORD + bytes([0x30 + number]))
    loaded = await load(f"keystore:{keys}?password_dir={keys}", pool)
    assert sorted(owners(loaded)) == sorted(OWNERS[:2])
    [(uri, reason)] = loaded.failures.items()
    assert uri == f"keystore:{keys}/{OWNERS[2]}.json"
    assert reason == f"has no password: {keys} has no file {OWNERS[2].lower()}.txt"


async def test_password_dir_without_an_address_goes_by_name(keys: Path, pool: OpeningPool) -> None:
    """A keystore that does not say its address has its password by its own name only."""
    for number, name in enumerate(("a", "b")):
        path = write(keys, number)
        make_anonymous(path)
        path.rename(keys / f"{name}.json")
    (keys / "a.pass").write_bytes(PASSWORD)
    (keys / f"{OWNERS[1]}.txt").write_bytes(PASSWORD)
    loaded = await load(f"keystore:{keys}?password_dir={keys}", pool)
    assert owners(loaded) == [OWNERS[0]]
    assert list(loaded.failures) == [f"keystore:{keys}/b.json"]


async def test_unreadable_places_keep_the_backend_from_starting(
    keys: Path, tmp_path: Path, password_file: Path, pool: OpeningPool
) -> None:
    """No keystores, no password file, no directory of passwords, a password as long as a book: errors at start."""
    write(keys)
    (tmp_path / "book").write_bytes(bytes(5000))
    for uri, reason in (
        (f"keystore:{tmp_path}/nowhere?password_file={password_file}", "No such file"),
        (f"keystore:{keys}?password_file={tmp_path}/nowhere", "No such file"),
        (f"keystore:{keys}?password_file={keys}", "Is a directory"),
        (f"keystore:{keys}?password_dir={tmp_path}/nowhere", "No such file"),
        (f"keystore:{keys}?password_dir={password_file}", "Not a directory"),
        (f"keystore:{keys}?password_file={tmp_path}/book", "is not a password"),
    ):
        with pytest.raises(KeyBackendError, match=reason):
            await load(uri, pool)


# --- Failures ---------------------------------------------------------------------------------------------------------


async def test_each_failure_has_its_reason_and_no_secret(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """What cannot be loaded is named with the reason, and the rest loads."""
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
        "huge.json": "is not a keystore: it is over 65536 bytes",
        "dangling.json": "cannot be read (No such file or directory)",
        "loop.json": "cannot be read (Too many levels of symbolic links)",
        "foreign.json": f"has the address {OWNERS[3]} and the key of {OWNERS[2]}",
    }


async def test_a_key_outside_of_the_curve_is_refused(
    keys: Path, password_file: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that decrypts to zero holds no key."""
    write(keys)
    monkeypatch.setattr("signer.adapters.keys.encrypted_json.decode_keyfile_json", lambda *_: bytes(32))
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert list(loaded.failures.values()) == ["does not hold a secp256k1 key"]


async def test_a_librarys_surprise_is_a_failure_without_its_text(
    keys: Path, password_file: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the library raises is named by its kind alone, for its text could hold anything."""

    def fail(*_: object) -> bytes:
        raise MemoryError(PASSWORD)

    write(keys)
    monkeypatch.setattr("signer.adapters.keys.encrypted_json.decode_keyfile_json", fail)
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    assert list(loaded.failures.values()) == ["could not be opened (MemoryError)"]


async def test_a_keystore_beyond_the_memory_budget_is_refused(keys: Path, password_file: Path) -> None:
    """What would take more memory than there is says how much it takes, and is not begun."""
    write_keystore(keys, SECRETS[0], PASSWORD, work=4096)
    pool = opening_pool(memory_budget=2 * 1024**2)
    loaded = await load(f"keystore:{keys}?password_file={password_file}", pool)
    pool.close()
    [reason] = loaded.failures.values()
    assert reason.startswith("needs 4 MiB to open and the budget is 2 MiB")


async def test_each_opening_takes_its_memory_of_the_budget(keys: Path, password_file: Path) -> None:
    """What a keystore's key derivation takes is what it asks the pool for."""

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


async def test_a_keystore_without_an_address_loads(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """The published format lets the address be left out, for privacy; the key says it."""
    make_anonymous(write(keys))
    assert owners(await load(f"keystore:{keys}?password_file={password_file}", pool)) == [OWNERS[0]]


# --- Reload -----------------------------------------------------------------------------------------------------------


async def test_what_has_not_changed_is_not_opened_again(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """A reload decrypts what is new or changed, by its file or by its password, and nothing else."""
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
def test_a_new_keystore_is_its_owners_alone(keys: Path, kdf: Kdf) -> None:
    """A new key is written under its address, mode 0600 whatever the umask says, and nothing else is left behind."""
    umask = os.umask(0)
    try:
        path = write_keystore(keys, None, PASSWORD, kdf=kdf, work=2)
    finally:
        os.umask(umask)
    assert list(keys.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = Account.decrypt(json.loads(path.read_text()), PASSWORD.decode())
    assert path.name == f"{Account.from_key(secret).address}.json"


def test_new_keys_are_different(keys: Path) -> None:
    """Two new keys are two owners."""
    assert write_keystore(keys, None, PASSWORD, work=2) != write_keystore(keys, None, PASSWORD, work=2)


def test_a_keystore_that_is_there_is_not_overwritten(keys: Path) -> None:
    """Writing the same owner again fails and leaves the first file as it was."""
    path = write(keys)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write(keys, 0, b"another")
    assert path.read_bytes() == before
    assert list(keys.iterdir()) == [path]


@pytest.mark.parametrize("password", [b"", b"x\n"])
def test_a_password_that_its_file_could_not_hold_is_refused(keys: Path, password: bytes) -> None:
    """Nothing is written under a password that would not be read back."""
    with pytest.raises(ValueError, match="password"):
        write(keys, 0, password)
    assert not list(keys.iterdir())


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, bytes(31), b"\x00" + SECRETS[0]])
def test_what_is_no_key_is_not_written(keys: Path, secret: bytes) -> None:
    """Zero, n and above, and other lengths are no keys."""
    with pytest.raises(ValueError, match=r"secp256k1|scalar"):
        write_keystore(keys, secret, PASSWORD, work=2)
    assert not list(keys.iterdir())


# --- Secrecy ----------------------------------------------------------------------------------------------------------


async def test_a_key_is_not_pickled_and_not_copied(keys: Path, password_file: Path, pool: OpeningPool) -> None:
    """No protocol of pickle, nor a copy, carries a key away."""
    write(keys)
    [key] = (await load(f"keystore:{keys}?password_file={password_file}", pool)).keys
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(key, protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            duplicate(key)


async def test_a_traceback_with_its_variables_shows_no_secret(
    keys: Path, tmp_path: Path, password_file: Path, pool: OpeningPool
) -> None:
    """An error while loaded keys are at hand, printed with every frame's variables, holds neither key nor password."""
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


def test_a_failed_writing_shows_no_secret(keys: Path) -> None:
    """An error of the file system, printed with every frame's variables, holds neither key nor password."""
    write(keys)
    with pytest.raises(FileExistsError) as refused:
        write_keystore(keys, SECRETS[0], PASSWORD, work=2)
    lines = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
    assert OWNERS[0] in lines
    for secret in (SECRETS[0], PASSWORD):
        assert repr(secret)[2:-1] not in lines
