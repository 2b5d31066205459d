"""Re-encryption of keystores: all or none, with the same keys."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.encrypted_json import encrypt_keystore, parse_keystore
from signer.adapters.keys.keystore import reencryption
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.keystore.passwords import PasswordDirectory, PasswordSource
from signer.adapters.keys.keystore.reencryption import KeystoreEncryption, ReencryptedKeystore, reencrypt_keystores
from signer.adapters.keys.opening_pool import OpeningPool

SECRETS = (b"\x11" * 32, b"\x22" * 32)
OLD, NEW = b"correct horse", b"battery staple"
LIGHT = KeystoreEncryption(password=NEW, work=2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two keystores with one password and their own file names."""
    directory = tmp_path / "old"
    directory.mkdir()
    for number, secret in enumerate(SECRETS):
        write_keystore(directory, secret, OLD, work=8192).rename(directory / f"owner-{number}.json")
    (tmp_path / "password").write_bytes(OLD + b"\n")
    return directory


def names_in(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())


def mode_of(path: Path) -> int:
    """Return the permission bits."""
    return path.stat().st_mode & 0o777


async def reencrypted(
    source: Path,
    target: Path,
    encryption: KeystoreEncryption = LIGHT,
    passwords: PasswordSource | None = None,
    memory_budget: int = 1 << 30,
) -> list[ReencryptedKeystore]:
    """Re-encrypt with a new pool."""
    passwords = passwords or PasswordSource(source.with_name("password"))
    pool = OpeningPool(memory_budget=memory_budget, threads=2)
    try:
        return await reencrypt_keystores(
            source, passwords, target, encryption, pool=pool, progress=lambda _done, _total: None
        )
    finally:
        pool.close()


async def test_keys_keep_their_file_names(source: Path, tmp_path: Path) -> None:
    """Each new file opens with the new password to the same key and needs less memory; the old files are unchanged."""
    before = {name: (source / name).read_bytes() for name in names_in(source)}
    target = tmp_path / "new"
    made = await reencrypted(source, target)
    assert mode_of(target) == 0o700
    assert [each.path for each in made] == [target / "owner-0.json", target / "owner-1.json"]
    for each, secret in zip(made, SECRETS, strict=True):
        assert mode_of(each.path) == 0o600
        keystore = parse_keystore(each.path.read_bytes())
        assert keystore.decrypt(NEW) == secret
        assert keystore.address == each.owner
        assert (each.memory_before, each.memory) == (128 * 8 * 8193, 128 * 8 * 3)
    assert {name: (source / name).read_bytes() for name in names_in(source)} == before
    assert names_in(tmp_path) == ["new", "old", "password"]


async def test_key_derivation_can_change(source: Path, tmp_path: Path) -> None:
    """PBKDF2 needs no memory; an existing empty directory is accepted."""
    target = tmp_path / "new"
    target.mkdir()
    made = await reencrypted(source, target, KeystoreEncryption(password=NEW, kdf="pbkdf2", work=1))
    assert [each.memory for each in made] == [0, 0]
    assert json.loads(made[0].path.read_text())["crypto"]["kdf"] == "pbkdf2"


async def test_nothing_is_written_if_one_keystore_cannot_be_opened(source: Path, tmp_path: Path) -> None:
    """Each such keystore is named with its reason, and no file remains."""
    write_keystore(source, b"\x33" * 32, b"another password", work=2).rename(source / "other.json")
    with pytest.raises(KeyBackendError, match=r"nothing was written[^\n]*\n  keystore:\S*other\.json the password"):
        await reencrypted(source, tmp_path / "new")
    assert names_in(tmp_path) == ["old", "password"]


async def test_file_that_is_not_a_keystore_is_named(source: Path, tmp_path: Path) -> None:
    """It is not skipped, because the new directory would lack it."""
    (source / "notes.json").write_text("{}")
    with pytest.raises(KeyBackendError, match=r"notes\.json is not version 3"):
        await reencrypted(source, tmp_path / "new")


async def test_keystore_with_wrong_address_is_refused(source: Path, tmp_path: Path) -> None:
    """A file that was mixed up is not made to look right."""
    document = json.loads((source / "owner-0.json").read_text())
    document["address"] = "22" * 20
    (source / "owner-0.json").write_text(json.dumps(document))
    with pytest.raises(KeyBackendError, match="and the key of"):
        await reencrypted(source, tmp_path / "new")


async def test_target_must_be_new_or_empty(source: Path, tmp_path: Path) -> None:
    """A file, a directory with files, and a missing parent directory are refused."""
    with pytest.raises(KeyBackendError, match="exists already"):
        await reencrypted(source, source)
    with pytest.raises(KeyBackendError, match="exists already"):
        await reencrypted(source, tmp_path / "password")
    with pytest.raises(KeyBackendError, match="no directory can be created in"):
        await reencrypted(source, tmp_path / "absent" / "new")


async def test_target_created_meanwhile_is_not_changed(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program creates a directory of that name while keystores are written."""
    target = tmp_path / "new"

    def make_while_another_appears(*args: object, **kwargs: object) -> bytes:
        target.mkdir(exist_ok=True)
        (target / "theirs").write_text("theirs")
        return encrypt_keystore(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(reencryption, "encrypt_keystore", make_while_another_appears)
    with pytest.raises(KeyBackendError, match="cannot be written to"):
        await reencrypted(source, target)
    assert names_in(target) == ["theirs"]
    assert names_in(tmp_path) == ["new", "old", "password"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace(b'"mac": "', b'"mac": "0'), "could not be re-encrypted|is missing, not hex"),
        (lambda text: text.replace(b'"kdf": "scrypt"', b'"kdf": "argon2"'), "an unsupported kdf"),
    ],
)
async def test_new_file_that_cannot_be_parsed_is_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[bytes], bytes],
    reason: str,
) -> None:
    """A library that writes an unreadable file is detected, and nothing remains."""
    monkeypatch.setattr(
        reencryption, "encrypt_keystore", lambda *args, **kwargs: spoil(encrypt_keystore(*args, **kwargs))
    )
    with pytest.raises(KeyBackendError, match=reason):
        await reencrypted(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_new_file_with_another_key_is_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new file must open to the same key."""
    monkeypatch.setattr(
        reencryption,
        "encrypt_keystore",
        lambda _secret, *args, **kwargs: encrypt_keystore(b"\x44" * 32, *args, **kwargs),
    )
    with pytest.raises(KeyBackendError, match="could not be opened again"):
        await reencrypted(source, tmp_path / "new")


async def test_each_keystore_may_have_its_own_password(source: Path, tmp_path: Path) -> None:
    """Passwords are found by name."""
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    (passwords / "owner-0.txt").write_bytes(OLD)
    (passwords / "owner-1.txt").write_bytes(b"wrong")
    with pytest.raises(KeyBackendError, match=r"owner-1\.json the password does not open it"):
        await reencrypted(source, tmp_path / "new", passwords=PasswordDirectory(passwords))
    (passwords / "owner-1.txt").write_bytes(OLD)
    assert len(await reencrypted(source, tmp_path / "new", passwords=PasswordDirectory(passwords))) == 2


async def test_error_shows_no_secret(source: Path, tmp_path: Path) -> None:
    """Passwords and keys are not in an error, in its frames' variables, or in a repr."""
    write_keystore(source, b"\x33" * 32, b"another password", work=2)
    with pytest.raises(KeyBackendError) as refused:
        await reencrypted(source, tmp_path / "new")
    told = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    shown = "".join(told.format()) + repr(KeystoreEncryption(password=NEW))
    for secret in (NEW, *SECRETS, b"another password"):
        assert secret.decode("latin-1") not in shown
        assert secret.hex() not in shown
