"""The backend ``hd:`` over real files: owners, reloads, invalid files, secrecy."""

from __future__ import annotations

import asyncio
import hmac
import json
import pickle
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from signer.adapters.keys.backend import BackendResources, KeyBackend, KeyBackendError, KeyUriInvalid, LoadedKeys
from signer.adapters.keys.encrypted_json import EncryptedSecret, Kdf, encrypt_keystore
from signer.adapters.keys.hd.backend import write_seed
from signer.adapters.keys.hd.bip32 import ExtendedKey
from signer.adapters.keys.hd.bip39 import seed_of_mnemonic
from signer.adapters.keys.hd.path import DEFAULT_PATH, DerivationPath
from signer.adapters.keys.hd.seed_file import encrypt_seed
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.settings import KeysSettings
from signer.domain.ethereum import address_of_public_key, self_test_message
from tests.support.fakes.keys import opening_pool
from tests.support.messages import read_vectors

VECTOR = read_vectors("hd/bip44.json")
MNEMONIC = VECTOR["mnemonic"]
OWNERS = [account["address"] for account in VECTOR["accounts"]]
SEED = seed_of_mnemonic(MNEMONIC)
PASSWORD = b"hunter2 hunter3"


@pytest.fixture
def pool() -> Iterator[OpeningPool]:
    """The threads that open and derive."""
    pool = opening_pool()
    yield pool
    pool.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A seed file of little work, and its password file."""
    write_seed(tmp_path / "seed.json", SEED, PASSWORD, work=2)
    (tmp_path / "password").write_bytes(PASSWORD + b"\n")
    return tmp_path


def uri(folder: Path, parameters: str = "indexes=0-9") -> str:
    """The key URI of the folder's seed."""
    return f"hd:{folder}/seed.json?password_file={folder}/password&{parameters}"


def backend(folder: Path, pool: OpeningPool, parameters: str = "indexes=0-9") -> KeyBackend:
    """The backend of the folder's seed."""
    return backend_for(uri(folder, parameters), BackendResources(pool))


async def load(backend: KeyBackend) -> LoadedKeys:
    """Load once."""
    return await backend.load(lambda _done, _total: None)


async def test_bip44_published_accounts(folder: Path, pool: OpeningPool) -> None:
    """The owners are the ten accounts that Hardhat and Anvil publish for their mnemonic, in order."""
    loaded = await load(backend(folder, pool))
    assert [key.address for key in loaded.keys] == OWNERS
    assert loaded.keys[9].uri == f"hd:{folder}/seed.json?path=m/44'/60'/0'/0/9"


@pytest.mark.parametrize(
    ("path", "indexes"),
    [
        ("m/44h/60h/0h/0", [0, 1, 2147483647]),
        ("m/44'/60'/*'/0/0", [0, 1, 5]),
        ("m/44'/60'/0'/*/3", [0, 2]),
        ("m/44'/60'/0'/*'", [0, 7]),
        ("m/44'/60'/0'", [0, 4]),
        ("m/*'", [0, 3]),
    ],
)
async def test_eth_account_derives_same_owners(
    folder: Path, pool: OpeningPool, path: str, indexes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every layout, owners and signatures equal those of the other implementation."""
    monkeypatch.setattr(Account, "_use_unaudited_hdwallet_features", True)
    keys = (await load(backend(folder, pool, f"path={path}&indexes={','.join(map(str, indexes))}"))).keys
    spelt = path.replace("h", "'") + ("" if "*" in path else "/*")
    for key, index in zip(keys, indexes, strict=True):
        other = Account.from_mnemonic(MNEMONIC, account_path=spelt.replace("*", str(index)))
        assert key.address == other.address
        body = b"challenge-signer self-test: this text proves that a key works and grants nothing"
        assert (await key.sign(self_test_message()))[:64] == bytes(other.sign_message(encode_defunct(body)).signature)[
            :64
        ]


async def test_keys_sign_in_any_order_with_their_own_secret(folder: Path, pool: OpeningPool) -> None:
    """The finisher accepts every signature, so no key signs with another secret."""
    ring = LoadedKeyRing(
        [backend(folder, pool)], KeysSettings(expected_owners=tuple(f"eip155:324:{owner}" for owner in OWNERS))
    )
    await ring.load()
    assert ring.status().is_ready
    keys = tuple(ring.keys())
    for _ in range(3):
        for key in reversed(keys):
            await key.sign(self_test_message())
    await asyncio.gather(*(key.sign(self_test_message()) for key in keys * 5))


async def test_reload_reads_indexes_file_again(folder: Path, pool: OpeningPool) -> None:
    """Owners are added and removed with the list; an owner that stays keeps its key object."""
    listed = folder / "indexes"
    listed.write_text("0-4\n")
    ring = LoadedKeyRing([hd := backend(folder, pool, f"indexes_file={listed}")])
    await ring.load()
    first = {key.address: key for key in (await load(hd)).keys}
    listed.write_text("# no comments\n")
    assert "numbers and ranges" in str(await failure(hd))
    listed.write_text("3-6\n9\n")
    report = await ring.reload()
    assert set(report.added) == {OWNERS[5], OWNERS[6], OWNERS[9]}
    assert set(report.removed) == set(OWNERS[:3])
    assert set(report.unchanged) == {OWNERS[3], OWNERS[4]}
    second = {key.address: key for key in (await load(hd)).keys}
    assert second[OWNERS[3]] is first[OWNERS[3]]


async def test_unchanged_seed_is_not_decrypted_again(
    folder: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload needs no key derivation unless the file or the password has changed."""
    hd = backend(folder, pool)
    before = await load(hd)
    monkeypatch.setattr(EncryptedSecret, "decrypt", lambda *_: pytest.fail("opened again"))
    assert list((await load(hd)).keys) == list(before.keys)


async def test_replaced_seed_gives_other_owners(folder: Path, pool: OpeningPool) -> None:
    """All owners of the new seed are derived."""
    hd = backend(folder, pool)
    await load(hd)
    (folder / "seed.json").write_bytes(encrypt_seed(seed_of_mnemonic(MNEMONIC, "other"), PASSWORD, work=2))
    owners = [key.address for key in (await load(hd)).keys]
    assert len(owners) == 10
    assert not set(owners) & set(OWNERS)


async def test_progress_is_reported_for_each_batch(folder: Path, pool: OpeningPool) -> None:
    """Progress starts with the total, never decreases, and ends with all keys."""
    seen: list[tuple[int, int]] = []
    await backend(folder, pool, "indexes=0-1499").load(lambda done, total: seen.append((done, total)))
    assert seen == [(done, 1500) for done in (0, 500, 1000, 1500)]


async def test_event_loop_runs_while_keys_are_derived(folder: Path, pool: OpeningPool) -> None:
    """Another task runs between two progress reports."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    seen: list[int] = []
    other = asyncio.create_task(take_turns())
    await backend(folder, pool, "indexes=0-1499").load(lambda _done, _total: seen.append(turns))
    other.cancel()
    assert seen == sorted(set(seen))


async def test_bip32_index_without_key_is_a_failure(
    folder: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure names its path, and the other owners load."""
    hd = backend(folder, pool, "indexes=0-2")
    real, numbered = hmac.digest, (1).to_bytes(4)

    def digest(key: bytes, text: bytes, name: str) -> bytes:
        return b"\xff" * 64 if text.endswith(numbered) else real(key, text, name)

    monkeypatch.setattr(hmac, "digest", digest)
    loaded = await load(hd)
    assert [key.address for key in loaded.keys] == [OWNERS[0], OWNERS[2]]
    assert list(loaded.failures) == [f"hd:{folder}/seed.json?path=m/44'/60'/0'/0/1"]


@pytest.mark.parametrize(
    ("tweak", "reason"),
    [(bytes(64), "could not be opened (ValueError)"), (b"\xff" * 64, "has no key at m/44'/60'/0'/0/*")],
)
async def test_bip32_seed_or_account_without_key_fails_the_backend(
    folder: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch, tweak: bytes, reason: str
) -> None:
    """A seed without a master key, and a path without a parent node, fail the load."""
    real = hmac.digest
    is_master = not any(tweak)

    def digest(key: bytes, text: bytes, name: str) -> bytes:
        return tweak if (key == b"Bitcoin seed") is is_master else real(key, text, name)

    monkeypatch.setattr(hmac, "digest", digest)
    assert reason in str(await failure(backend(folder, pool)))


async def test_signing_fails_at_index_without_key(
    folder: Path, pool: OpeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises and does not sign with another secret."""
    (key,) = (await load(backend(folder, pool, "indexes=0"))).keys
    monkeypatch.setattr(hmac, "digest", lambda *_: b"\xff" * 64)
    with pytest.raises(LookupError, match="no key at this index"):
        await key.sign(self_test_message())


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
async def test_seed_opens_with_either_key_derivation(tmp_path: Path, pool: OpeningPool, kdf: Kdf) -> None:
    """Files of scrypt and of PBKDF2 open; the section ``crypto`` is a keystore's."""
    crypto = json.loads(encrypt_keystore(SEED[:32], PASSWORD, kdf=kdf, work=4))["crypto"]
    (tmp_path / "seed.json").write_text(json.dumps({"format": "hd-seed", "version": 1, "crypto": crypto}))
    (tmp_path / "password").write_bytes(PASSWORD)
    branch = ExtendedKey.from_seed(SEED[:32]).descendant(DerivationPath.parse(DEFAULT_PATH).before)
    assert branch is not None
    wanted = [address_of_public_key(branch.leaf_public_key(index) or b"") for index in range(len(OWNERS))]
    assert [key.address for key in (await load(backend(tmp_path, pool))).keys] == wanted


async def failure(backend: KeyBackend) -> KeyBackendError:
    """Return the error of a load."""
    with pytest.raises(KeyBackendError) as failed:
        await load(backend)
    return failed.value


async def test_load_fails_with_wrong_password(folder: Path, pool: OpeningPool) -> None:
    """The error names the file; no traceback contains the password or the seed."""
    (folder / "password").write_bytes(b"another word")
    error = await failure(backend(folder, pool))
    assert ("the password does not open it" in str(error), error.cause) == (True, "authentication")
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "another word" not in shown
    assert SEED.hex() not in shown


@pytest.mark.parametrize("missing", ["seed.json", "password", "indexes"])
async def test_load_error_names_missing_file(folder: Path, pool: OpeningPool, missing: str) -> None:
    """Each of the three files is named if it cannot be read."""
    (folder / "indexes").write_text("0-9")
    hd = backend(folder, pool, f"indexes_file={folder}/indexes")
    (folder / missing).unlink()
    assert f"{folder}/{missing} cannot be read (No such file or directory)" in str(await failure(hd))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "web3"}, "is not a seed file"),
        ({"version": 3}, "an unsupported version"),
        ({"crypto": {}}, "an unsupported cipher"),
        ({"crypto": None}, "no object crypto"),
    ],
)
async def test_invalid_seed_file_is_refused(
    folder: Path, pool: OpeningPool, change: dict[str, object], reason: str
) -> None:
    """Every field is checked before the password is used."""
    document = json.loads((folder / "seed.json").read_text())
    (folder / "seed.json").write_text(json.dumps(document | change))
    assert reason in str(await failure(backend(folder, pool)))


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 60_000, b" " * 70_000])
async def test_garbage_is_not_a_seed_file(folder: Path, pool: OpeningPool, text: bytes) -> None:
    """The error is a sentence, whatever the file contains."""
    (folder / "seed.json").write_bytes(text)
    assert "seed" in str(await failure(backend(folder, pool)))


async def test_keystore_and_seed_file_are_not_interchangeable(tmp_path: Path, pool: OpeningPool) -> None:
    """Neither reader accepts the other's file, even if the secrets have the same length."""
    (tmp_path / "password").write_bytes(PASSWORD)
    write_keystore(tmp_path, bytes([7]) * 32, PASSWORD, work=2).rename(tmp_path / "seed.json")
    assert "is not a seed file" in str(await failure(backend(tmp_path, pool)))
    write_seed(tmp_path / "short.json", bytes([7]) * 32, PASSWORD, work=2)
    keystore = backend_for(f"keystore:{tmp_path}/short.json?password_file={tmp_path}/password", BackendResources(pool))
    assert "version 3" in str((await load(keystore)).failures)


async def test_seed_beyond_memory_budget_is_refused(folder: Path) -> None:
    """The budget is checked before the key derivation starts."""
    pool = opening_pool(memory_budget=1024)
    assert "the budget is" in str(await failure(backend(folder, pool)))
    pool.close()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_indexes_file_may_be_in_another_encoding(folder: Path, pool: OpeningPool, encoding: str) -> None:
    """As Windows writes it."""
    (folder / "indexes").write_bytes("0-1\r\n7\r\n".encode(encoding))
    loaded = await load(backend(folder, pool, f"indexes_file={folder}/indexes"))
    assert [key.address for key in loaded.keys] == [OWNERS[0], OWNERS[1], OWNERS[7]]


async def test_indexes_file_must_be_a_short_list_of_numbers(folder: Path, pool: OpeningPool) -> None:
    """Other bytes, and a file over 1 MiB, are refused."""
    (folder / "indexes").write_bytes("0\N{EN DASH}9".encode())
    hd = backend(folder, pool, f"indexes_file={folder}/indexes")
    assert "are not numbers and ranges" in str(await failure(hd))
    (folder / "indexes").write_bytes(b"1," * 600_000)
    assert "is too long" in str(await failure(hd))


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("", "a parameter without"),
        ("path=m", "either indexes"),
        ("indexes=0&indexes_file=/x", "either indexes"),
        ("indexes=0-", "the indexes of the key URI"),
        ("indexes=0&path=44'/60'", "the path of the key URI"),
        ("indexes=0&pth=m", "does not know"),
        ("indexes=0&mnemonic=legal%20winner", "has a secret"),
    ],
)
def test_invalid_uri_is_refused(folder: Path, pool: OpeningPool, parameters: str, reason: str) -> None:
    """A missing, unknown, duplicate or invalid parameter is refused when the backend is created."""
    with pytest.raises(KeyUriInvalid, match=reason) as refused:
        backend(folder, pool, parameters)
    assert "winner" not in str(refused.value)


def test_uri_needs_password_file(pool: OpeningPool) -> None:
    """A seed file is always encrypted."""
    with pytest.raises(KeyUriInvalid, match="password_file"):
        backend_for("hd:/run/secrets/seed.json?indexes=0", BackendResources(pool))


def test_new_seed_file_has_mode_0600_and_replaces_nothing(folder: Path) -> None:
    """No temporary file remains."""
    written = folder / "seed.json"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    before = written.read_bytes()
    with pytest.raises(FileExistsError):
        write_seed(written, SEED, PASSWORD, work=2)
    assert written.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["password", "seed.json"]


@pytest.mark.parametrize(("seed", "password"), [(SEED, b""), (SEED, b"pw\n"), (b"short", b"pw"), (bytes(65), b"pw")])
def test_seed_that_could_not_be_opened_is_not_written(tmp_path: Path, seed: bytes, password: bytes) -> None:
    """An empty password, a password with a newline, and an invalid seed are refused."""
    with pytest.raises(ValueError, match=r"password|seed"):
        write_seed(tmp_path / "seed.json", seed, password, work=2)
    assert list(tmp_path.iterdir()) == []


async def test_no_secret_is_shown_pickled_or_kept_after_close(folder: Path, pool: OpeningPool) -> None:
    """Seed, password and private keys are not in any repr; keys cannot be pickled."""
    hd = backend(folder, pool)
    loaded = await load(hd)
    shown = repr(hd) + repr(hd.uri) + repr(loaded) + repr(vars(hd))
    for secret in (SEED.hex(), PASSWORD.decode(), *(account["secret"] for account in VECTOR["accounts"])):
        assert secret not in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(loaded.keys[0])
    await loaded.keys[0].sign(self_test_message())
    reused_key = loaded.keys[0]._branch._reused_key  # type: ignore[attr-defined]
    assert reused_key.secret == (1).to_bytes(32)
    await hd.close()
    assert "_branch': None" in repr(vars(hd))
