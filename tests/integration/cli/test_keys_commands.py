"""``signer keys``: every command over real keystores and a real token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from coincurve import PrivateKey
from eth_account import Account

from signer.adapters.keys.encrypted_json import parse_keystore
from signer.adapters.keys.keystore.backend import write_keystore
from signer.cli.keys import group
from signer.cli.keys.group import COMMAND_FOR_NAME
from signer.cli.main import main
from tests.support.missing_packages import without
from tests.support.softhsm import softhsm
from tests.support.terminal import on_terminal

SECRET = b"\x11" * 32
OWNER = Account.from_key(SECRET).address
PASSWORD = "correct horse battery"
LIGHT = ("--n", "2")
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"TERM": "xterm"}


@pytest.fixture(autouse=True)
def _without_hardening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardening cannot be undone, and these commands run in the process of the tests."""
    monkeypatch.setattr(group, "harden", lambda: None)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """An empty directory, beside the file with the password."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys"


def run(*arguments: object, stdin: str | None = None) -> Result:
    """Run ``signer keys``."""
    return CliRunner().invoke(main, ["keys", *map(str, arguments)], input=stdin)


def refused(result: Result, text: str, status: int = 1) -> None:
    """Check that a command failed with an explanation, and without a traceback or a secret."""
    assert (result.exit_code, text in result.output) == (status, True), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert PASSWORD not in result.output
    assert SECRET.hex() not in result.output


def uri_of(keys: Path) -> str:
    """Return the key URI of the keystores."""
    return f"keystore:{keys}?password_file={keys.with_name('password')}"


def settings_with(keys: Path, *lines: str) -> Path:
    """Write settings whose keys are these."""
    file = keys.with_name("signer.toml")
    file.write_text("\n".join(["[keys]", f'uris = ["{uri_of(keys)}"]', *lines]))
    return file


@pytest.mark.parametrize("name", COMMAND_FOR_NAME)
def test_every_command_has_help(name: str) -> None:
    """No help mentions a secret as an argument."""
    assert name in run("--help").output
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "--password " not in result.output


# --- new and import ---------------------------------------------------------------------------------------------------


def test_new_creates_strong_keystore(keys: Path) -> None:
    """Scrypt of the usual strength, mode 0600; owner and location are printed."""
    result = run("new", keys, "--password-file", keys.with_name("password"))
    assert result.exit_code == 0, result.output
    (file,) = keys.iterdir()
    assert result.output == f"{file.stem}  keystore:{file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["crypto"]["kdfparams"]["n"] == 262_144
    assert Account.from_key(parse_keystore(file.read_bytes()).decrypt(PASSWORD.encode())).address == file.stem


def test_new_creates_the_directory(keys: Path) -> None:
    """With mode 0700."""
    result = run("new", keys / "more", "--password-file", keys.with_name("password"), *LIGHT)
    assert result.exit_code == 0, result.output
    assert (keys / "more").stat().st_mode & 0o777 == 0o700


def test_new_without_target_uses_keystore_of_settings(keys: Path) -> None:
    """The key is created where the service loads it, with the password that the service uses."""
    result = run("new", "--config", settings_with(keys), "--kdf", "pbkdf2", "--iterations", "10", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.output)
    assert made == {"owner": made["owner"], "uri": f"keystore:{keys / made['owner']}.json"}
    assert made["owner"] in run("list", uri_of(keys)).output


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        f"0x{SECRET.hex()}",
        f"0X{SECRET.hex()}",
        f"  0x{SECRET.hex().upper()}\n\n",
        f"\ufeff{SECRET.hex()}\r\n",
    ],
)
def test_import_accepts_hex_from_stdin_and_from_file(text: str, keys: Path) -> None:
    """64 hex digits, with or without ``0x``, with white space around them."""
    from_stdin = run("import", keys, "--password-file", keys.with_name("password"), *LIGHT, stdin=text)
    assert from_stdin.output == f"{OWNER}  keystore:{keys}/{OWNER}.json\n"
    (keys / f"{OWNER}.json").unlink()
    keys.with_name("raw").write_text(text)
    options = ("--from", keys.with_name("raw"), "--password-file", keys.with_name("password"))
    assert run("import", keys, *options, *LIGHT).output == from_stdin.output


def test_import_pads_a_key_without_its_leading_zero_bytes(keys: Path) -> None:
    """A private key is a number below n: some programs write 31 bytes."""
    secret = bytes(1) + SECRET[1:]
    result = run("import", keys, "--password-file", keys.with_name("password"), *LIGHT, stdin=secret[1:].hex())
    assert result.output.startswith(Account.from_key(secret).address)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Not a raw private key"),
        (SECRET.hex()[:-1], "Not a raw private key"),
        (SECRET.hex() + "0", "Not a raw private key"),
        (SECRET.hex()[:-1], "This has 63 hex digits"),
        ("0x" + SECRET.hex() * 2, "This has 128 hex digits"),
        ('{"version": 3}', "put the file among the keystores"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHQ\n", "This is PEM"),
        ("legal winner thank year wave sausage worth useful legal winner thank yellow", "signer keys seed import"),
        (SECRET.hex()[:-1] + "\uff11", "Not a raw private key"),
        (f"{SECRET.hex()} {SECRET.hex()}", "Not a raw private key"),
        ("00" * 32, "Not a secp256k1 key"),
        ("ff" * 32, "Not a secp256k1 key"),
    ],
)
def test_import_refuses_invalid_key_and_does_not_quote_it(text: str, said: str, keys: Path) -> None:
    """Nothing is written. The text may be a key with a typing error, so it is not shown."""
    result = run("import", keys, "--password-file", keys.with_name("password"), *LIGHT, stdin=text)
    refused(result, said)
    assert not text or text not in result.output
    assert list(keys.iterdir()) == []


def test_import_accepts_utf_16(keys: Path) -> None:
    """PowerShell's ``>`` writes it."""
    keys.with_name("raw").write_bytes(f"{SECRET.hex()}\r\n".encode("utf-16"))
    options = ("--from", keys.with_name("raw"), "--password-file", keys.with_name("password"))
    assert run("import", keys, *options, *LIGHT).output.startswith(OWNER)


def test_import_refuses_binary_file(keys: Path) -> None:
    """32 raw bytes are not hex."""
    keys.with_name("raw").write_bytes(b"\xff" * 32)
    options = ("--from", keys.with_name("raw"), "--password-file", keys.with_name("password"))
    refused(run("import", keys, *options), "This is not hex.")


def test_import_does_not_overwrite_keystore(keys: Path) -> None:
    """The second keystore of an owner is refused."""
    arguments = ("import", keys, "--password-file", keys.with_name("password"), *LIGHT)
    run(*arguments, stdin=SECRET.hex())
    before = (keys / f"{OWNER}.json").read_bytes()
    refused(run(*arguments, stdin=SECRET.hex()), "has a keystore of that owner already")
    assert (keys / f"{OWNER}.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (("new", "keys", "--n", "3"), "power of two", 2),
        (("new", "keys", "--iterations", "5"), "--iterations is for --kdf pbkdf2", 2),
        (("new", "keys", "--kdf", "pbkdf2", "--n", "2"), "--n is for --kdf scrypt", 2),
        (("new", "keys", "--label", "x"), "--label is for tokens", 2),
        (("new", "awskms:alias/x"), "aws kms create-key", 2),
        (("new", "hd:/seed?password_file=/p&indexes=0"), "add the index", 2),
        (("new", "keystore:"), "names no file", 1),
        (("new", "keystore:/keys?colour=red"), "colour", 1),
        (("new",), "keys.uris has no keystore or token", 2),
        (("new", "password"), "is a file", 1),
        (("new", "absent/keys"), "cannot be written to (No such file or directory)", 1),
        (("new", "keys", "--password-file", "empty"), "must not be empty", 1),
        (("new", "keys", "--password-file", "long"), "is too long", 1),
        (("new", "foo:bar"), 'There is no key backend "foo" (awskms, hd, keystore, pkcs11). For a path', 2),
        (("new", "Foo:bar"), "For a path of that name write ./Foo:…", 2),
        (("import", "foo:bar"), 'There is no key backend "foo"', 2),
        (("list",), "give a PLACE", 2),
        (("list", "keys"), "needs either password_file=<path>", 2),
        (("list", "absent", "--password-file", "password"), "keystores absent cannot be read", 1),
        (("list", "hsm:slot"), 'There is no key backend "hsm"', 2),
        (("check", "keystore:a?colour=red", "hd:b", "awskms:c"), "'colour'", 2),
        (("check", "keystore:a?colour=red", "hd:b", "awskms:c"), "hd:b needs password_file", 2),
        (("check", "keystore:a?colour=red", "hd:b", "awskms:c"), "awskms:c names no KMS key", 2),
        (("reencrypt", "keys", "--out", "x", "--password-file", "password", "--password-dir", "."), "needs either", 2),
        (("reencrypt", "hd:seed", "--out", "x"), "is not a place of keystores", 2),
        (("reencrypt", "foo:bar", "--out", "x"), 'There is no key backend "foo"', 2),
    ],
)
def test_impossible_command_explains_itself(
    arguments: tuple[str, ...],
    said: str,
    status: int,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A usage error exits with 2, others with 1; nothing is written."""
    monkeypatch.chdir(keys.parent)
    Path("empty").write_text("\n")
    Path("long").write_text("x" * 5000)
    if arguments[0] == "new" and "--password-file" not in arguments:
        arguments = (*arguments, "--password-file", "password")
    refused(run(*arguments), said, status)
    assert list(keys.iterdir()) == []


def test_new_without_target_refuses_two_keystores(keys: Path) -> None:
    """The command does not choose between them."""
    file = settings_with(keys)
    file.write_text(f'[keys]\nuris = ["{uri_of(keys)}", "{uri_of(keys)}"]')
    refused(run("new", "--config", file), "keys.uris has 2 keystores or tokens", 2)


# --- list, check, export-public ---------------------------------------------------------------------------------------


def test_list_shows_loaded_failed_and_missing_keys(keys: Path) -> None:
    """As a table and as JSON; nothing is signed."""
    write_keystore(keys, SECRET, PASSWORD.encode(), work=2)
    (keys / "broken.json").write_text("{}")
    missing = Account.from_key(b"\x22" * 32).address
    config = settings_with(keys, f'expected_owners = ["eip155:324:{missing}", "eip155:324:{OWNER}"]')
    table = run("list", "--config", config)
    assert table.exit_code == 1
    assert [line.split()[:3] for line in table.output.splitlines()] == [
        ["owner", "backend", "state"],
        [OWNER, "keystore", "loaded"],
        ["-", "keystore", "failed"],
        [missing, "-", "missing"],
    ]
    rows = json.loads(run("list", "--config", config, "--json").output)
    assert [row["state"] for row in rows] == ["loaded", "failed", "missing"]
    assert rows[0] == {
        "owner": OWNER,
        "backend": "keystore",
        "uri": f"keystore:{keys}/{OWNER}.json",
        "state": "loaded",
        "detail": None,
    }
    assert "version 3" in rows[1]["detail"]


@pytest.mark.parametrize("command", ["list", "check", "export-public"])
def test_exit_code_says_whether_all_keys_are_loaded(command: str, keys: Path) -> None:
    """0 for all, 1 if one or all failed or there is none. The place may be a path or a URI."""
    options = ("--password-file", keys.with_name("password"))
    assert run(command, keys, *options).exit_code == 1
    write_keystore(keys, SECRET, PASSWORD.encode(), work=2)
    for place in (
        (keys, *options),
        (uri_of(keys),),
        (f"keystore:{keys}", *options),
        (keys / f"{OWNER}.json", *options),
    ):
        assert run(command, *place).exit_code == 0
    (keys / "broken.json").write_text("{}")
    some = run(command, keys, *options)
    assert (some.exit_code, OWNER in some.output, "version 3" in some.output) == (1, True, True)
    (keys / f"{OWNER}.json").unlink()
    assert run(command, keys, *options).exit_code == 1


def test_path_with_a_colon_is_written_with_its_directory(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``new`` creates the directory, and the other commands find it by the same name."""
    monkeypatch.chdir(keys.parent)
    assert run("new", "./foo:bar", "--password-file", "password", *LIGHT).exit_code == 0
    assert run("list", "./foo:bar", "--password-file", "password").exit_code == 0
    assert run("reencrypt", "./foo:bar", "--out", "out", "--password-file", "password", *LIGHT).exit_code == 2
    light = ("--out", "out", "--password-file", "password", "--new-password-file", "password", *LIGHT)
    assert run("reencrypt", "./foo:bar", *light).exit_code == 0
    assert run("list", "out", "--password-file", "password").exit_code == 0


def test_check_signs_with_every_key(keys: Path) -> None:
    """Exit 0 if every signature is its owner's and no expected owner is missing."""
    write_keystore(keys, SECRET, PASSWORD.encode(), work=2)
    result = run("check", "--config", settings_with(keys), "--json")
    (row,) = json.loads(result.output)
    assert (result.exit_code, row["owner"], row["state"], row["detail"].endswith(" ms")) == (0, OWNER, "signs", True)
    missing = run("check", "--config", settings_with(keys, f'expected_owners = ["eip155:1:0x{"22" * 20}"]'))
    assert (missing.exit_code, "missing" in missing.output) == (1, True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda keys: (keys / "broken.json").write_text("{}"), "is not version 3"),
        (lambda keys: keys.with_name("password").write_text("wrong"), "the password does not open it"),
        (lambda keys: keys.with_name("password").unlink(), "cannot be read (No such file or directory)"),
        (lambda keys: keys.rename(keys.with_name("gone")), "cannot be read (No such file or directory)"),
        (lambda keys: (keys / "same.json").write_bytes((keys / f"{OWNER}.json").read_bytes()), "has two keys"),
        (lambda keys: (keys / f"{OWNER}.json").unlink(), "has no keystore"),
    ],
)
def test_check_fails_if_one_key_fails(spoil: Any, said: str, keys: Path) -> None:  # noqa: ANN401
    """Exit 1, with the reason beside the key or the location."""
    write_keystore(keys, SECRET, PASSWORD.encode(), work=2)
    spoil(keys)
    result = run("check", uri_of(keys))
    refused(result, said)
    assert "failed" in result.output


def test_export_public_prints_address_and_public_key(keys: Path) -> None:
    """65 bytes, uncompressed. Failures go to standard error, and the exit status is 1."""
    write_keystore(keys, SECRET, PASSWORD.encode(), work=2)
    public_key = "0x" + PrivateKey(SECRET).public_key.format(compressed=False).hex()
    result = run("export-public", uri_of(keys))
    assert (result.exit_code, result.stdout) == (0, f"{OWNER} {public_key}\n")
    exported = json.loads(run("export-public", uri_of(keys), "--json").stdout)
    assert exported == [{"owner": OWNER, "publicKey": public_key, "uri": f"keystore:{keys}/{OWNER}.json"}]
    (keys / "broken.json").write_text("{}")
    result = run("export-public", uri_of(keys))
    assert (result.exit_code, result.stdout) == (1, f"{OWNER} {public_key}\n")
    assert "broken.json: failed:" in result.stderr


def test_missing_extra_is_named(keys: Path, tmp_path: Path) -> None:
    """The error says which extra to install."""
    done = subprocess.run(
        [sys.executable, "-m", "signer", "keys", "list", "awskms:alias/x?region=eu-west-1"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | {"PYTHONPATH": str(without(tmp_path, "aiobotocore"))},
    )
    assert (done.returncode, "pip install challenge-signer[awskms]" in done.stderr) == (1, True)


# --- reencrypt --------------------------------------------------------------------------------------------------------


def test_reencrypt_writes_weaker_keystores_with_a_warning(keys: Path) -> None:
    """Same owner, new password; standard error says when weaker keystores are fine."""
    write_keystore(keys, SECRET, PASSWORD.encode(), work=16_384)
    keys.with_name("new-password").write_text("battery staple")
    out = keys.with_name("light")
    passwords = ("--password-file", keys.with_name("password"), "--new-password-file", keys.with_name("new-password"))
    result = run("reencrypt", keys, "--out", out, *passwords, "--kdf", "scrypt", "--n", 4096)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{OWNER}  {out}/{OWNER}.json  needs 4 MiB to open instead of 16\n"
    assert "64 times less" in result.stderr
    assert "That is fine for keystores that are mounted" in result.stderr
    assert json.loads((out / f"{OWNER}.json").read_text())["crypto"]["kdfparams"]["n"] == 4096
    assert run("check", f"keystore:{out}?password_file={keys.with_name('new-password')}").exit_code == 0
    refused(run("reencrypt", keys, "--out", out, *passwords), "exists already")


def test_reencrypt_reads_password_dir(keys: Path) -> None:
    """As JSON the files and their memory are listed."""
    write_keystore(keys, SECRET, b"its own", work=2)
    passwords = keys.with_name("passwords")
    passwords.mkdir()
    (passwords / f"{OWNER}.txt").write_text("its own")
    options = ("--password-dir", passwords, "--new-password-file", keys.with_name("password"), "--json")
    result = run("reencrypt", keys, "--out", keys.with_name("light"), *options, *LIGHT)
    assert json.loads(result.stdout) == [
        {
            "owner": OWNER,
            "file": f"{keys.with_name('light')}/{OWNER}.json",
            "memoryBefore": 3072,
            "memory": 3072,
        },
    ]


# --- a terminal -------------------------------------------------------------------------------------------------------


def test_new_prompts_for_password_twice(keys: Path) -> None:
    """The password is not echoed; two that differ are refused."""
    command = [sys.executable, "-m", "signer", "keys", "new", str(keys), *LIGHT]
    for second, status in (("another", 1), (PASSWORD, 0)):
        with on_terminal(command, ENVIRONMENT) as terminal:
            terminal.wait_for(f"Password of the new keystore in {keys}: ")
            terminal.type(PASSWORD + "\n")
            terminal.wait_for("Repeat the password: ")
            terminal.type(second + "\n")
            assert terminal.end() == status
            assert PASSWORD not in terminal.shown
            assert ("two passwords differ" in terminal.shown) is (status == 1)
    assert run("check", uri_of(keys)).exit_code == 0


def test_import_prompts_for_key(keys: Path) -> None:
    """On a terminal; the key is not echoed."""
    options = ("--password-file", str(keys.with_name("password")), *LIGHT)
    with on_terminal([sys.executable, "-m", "signer", "keys", "import", str(keys), *options], ENVIRONMENT) as terminal:
        terminal.wait_for("Private key (hex): ")
        terminal.type(SECRET.hex() + "\n")
        assert terminal.end() == 0
        assert OWNER in terminal.shown
        assert SECRET.hex() not in terminal.shown


def test_reencrypt_prompts_for_both_passwords(keys: Path) -> None:
    """The old one once, the new one twice; password files beside the keystores are ignored."""
    write_keystore(keys, SECRET, PASSWORD.encode(), work=2)
    (keys / "notes.txt").write_text("not a keystore")
    out = keys.with_name("light")
    command = [sys.executable, "-m", "signer", "keys", "reencrypt", str(keys), "--out", str(out), *LIGHT]
    with on_terminal(command, ENVIRONMENT) as terminal:
        terminal.wait_for(f"Password of the keystores in {keys}: ")
        terminal.type(PASSWORD + "\n")
        seen = terminal.wait_for(f"Password of the new keystores in {out}: ")
        terminal.type("battery staple\n")
        terminal.wait_for("Repeat the password: ", after=seen)
        terminal.type("battery staple\n")
        assert terminal.end() == 0, terminal.shown
    assert parse_keystore((out / f"{OWNER}.json").read_bytes()).decrypt(b"battery staple") == SECRET


def test_command_without_terminal_does_not_wait_for_input(keys: Path) -> None:
    """The error names the option to use."""
    done = subprocess.run(
        [sys.executable, "-m", "signer", "keys", "new", str(keys)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert (done.returncode, "name a file with --password-file" in done.stderr) == (2, True)


def test_progress_bar_is_shown_on_terminal_only(keys: Path) -> None:
    """It counts the keys; if standard error is a pipe there is none."""
    for number in range(1, 7):
        write_keystore(keys, bytes([number]) * 32, PASSWORD.encode(), work=16_384)
    command = [sys.executable, "-m", "signer", "keys", "list", uri_of(keys)]
    with on_terminal(command, ENVIRONMENT) as terminal:
        assert terminal.end() == 0
        assert "loading keys" in terminal.shown
        assert "/6" in terminal.shown
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "loading keys" not in done.stdout


# --- a token ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("softhsm2-util")
def test_new_and_import_work_with_token(tmp_path: Path) -> None:
    """The token signs with both keys, and a label is not used twice."""
    with softhsm(tmp_path / "hsm") as hsm:
        uri = hsm.add_token().uri()
        made = json.loads(run("new", uri, "--label", "made here", "--json").output)
        put = json.loads(run("import", f"{uri}", "--label", "put there", "--json", stdin=SECRET.hex()).output)
        assert (put["owner"], "object=put%20there" in put["uri"]) == (OWNER, True)
        assert {row["owner"] for row in json.loads(run("check", uri, "--json").output)} == {OWNER, made["owner"]}
        public_key = PrivateKey(SECRET).public_key.format(compressed=False).hex()
        assert f"{OWNER} 0x{public_key}" in run("export-public", uri).output
        refused(run("new", uri, "--label", "made here"), "already has a key with that label")
        refused(run("new", uri), "add object=<label>")
        refused(run("import", uri, "--label", "zero", stdin="00" * 32), "Not a secp256k1 key")
