"""``signer keys seed``: the written file opens as the service opens it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signer.cli.keys import group
from signer.cli.main import main
from tests.support.messages import read_vectors
from tests.support.terminal import on_terminal

VECTOR = read_vectors("hd/bip44.json")
OWNERS = [account["address"] for account in VECTOR["accounts"]]
WORDS: str = VECTOR["mnemonic"]
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"TERM": "xterm"}


@pytest.fixture(autouse=True)
def _without_hardening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardening cannot be undone, and these commands run in the process of the tests."""
    monkeypatch.setattr(group, "harden", lambda: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a password file as Windows writes it."""
    (tmp_path / "password").write_bytes(b"correct horse battery\r\n")
    return tmp_path


def run(folder: Path, *arguments: object, stdin: str | bytes | None = None) -> Result:
    """Run ``signer keys seed`` with the folder's password."""
    options = ("--password-file", folder / "password", "--n", "2")
    return CliRunner().invoke(main, ["keys", "seed", *map(str, (*arguments, *options))], input=stdin)


def owners_loaded(folder: Path, parameters: str = "indexes=0-2") -> list[str]:
    """Return the owners that the service finds in the new file."""
    uri = f"hd:{folder}/seed.json?password_file={folder}/password&{parameters}"
    result = CliRunner().invoke(main, ["keys", "list", uri, "--json"])
    assert result.exit_code == 0, result.output
    return [row["owner"] for row in json.loads(result.stdout)]


@pytest.mark.parametrize("words", [12, 24])
def test_new_seed_opens_and_its_words_are_shown_once(folder: Path, words: int) -> None:
    """The words, imported again, give the same owners."""
    made = run(folder, "new", folder / "seed.json", "--words", words)
    assert made.exit_code == 0, made.stderr
    mnemonic, *owners = made.stdout.splitlines()
    assert len(mnemonic.split()) == words
    assert stat.S_IMODE((folder / "seed.json").stat().st_mode) == 0o600
    assert sorted(owners_loaded(folder)) == sorted(owners)
    assert "shown once" in made.stderr
    assert f"hd:{folder}/seed.json?password_file={folder}/password" in made.stderr
    assert mnemonic not in made.stderr
    again = run(folder, "import", folder / "again.json", stdin=mnemonic)
    assert again.stdout.splitlines() == owners


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_import_reads_words_from_file_and_from_stdin(folder: Path, encoding: str) -> None:
    """In several lines and in any encoding; the first owners are printed, and the words are not."""
    written = WORDS.replace(" ", "\r\n").encode(encoding)
    (folder / "words").write_bytes(written)
    from_file = run(folder, "import", folder / "seed.json", "--from", folder / "words", "--json")
    assert json.loads(from_file.stdout) == {"owners": OWNERS[:3]}
    assert sorted(owners_loaded(folder)) == sorted(OWNERS[:3])
    from_stdin = run(folder, "import", folder / "other.json", stdin=written)
    assert from_stdin.stdout.splitlines() == OWNERS[:3]
    assert WORDS.rpartition(" ")[2] not in from_file.output + from_stdin.output + from_stdin.stderr


def test_import_with_passphrase_and_path_gives_other_owners(folder: Path) -> None:
    """The passphrase is part of the seed; the path only chooses the owners that are printed."""
    (folder / "passphrase").write_text("TREZOR\n")
    path = "m/44h/60h/*h/0/0"
    made = run(
        *(folder, "import", folder / "seed.json", "--passphrase-file", folder / "passphrase", "--path", path),
        stdin=WORDS,
    )
    assert made.exit_code == 0, made.stderr
    assert not set(made.stdout.splitlines()) & set(OWNERS)
    assert sorted(owners_loaded(folder, f"path={path}&indexes=0-2")) == sorted(made.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "stdin", "said", "status"),
    [
        (("import", "seed.json"), WORDS + " yellow", "has 12, 15, 18, 21, 24 words, and this has 13", 1),
        (("import", "seed.json"), WORDS.replace(WORDS.split(maxsplit=1)[0], "wombat"), "checksum is wrong", 1),
        (("import", "seed.json", "--path", "44/60"), WORDS, "--path does not begin with m", 2),
        (("import", "seed.json", "--from", "."), None, "is a directory", 2),
        (("import", "seed.json", "--passphrase-file", "latin-1"), WORDS, "is not UTF-8 text", 1),
        (("import", "password"), WORDS, "password exists already; nothing was written", 1),
        (("new", "password"), None, "password exists already; nothing was written", 1),
        (("new", "absent/seed.json"), None, "cannot be written (No such file or directory)", 1),
        (("new", "seed.json", "--words", "13"), None, "'13' is not one of", 2),
    ],
)
def test_impossible_command_explains_itself(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    stdin: str | None,
    said: str,
    status: int,
) -> None:
    """Nothing is written, and no word is quoted."""
    monkeypatch.chdir(folder)
    Path("latin-1").write_bytes("pässphrase".encode("latin-1"))
    before = sorted(path.name for path in folder.iterdir())
    result = run(folder, *arguments, stdin=stdin)
    assert (result.exit_code, said in result.stderr) == (status, True), result.stderr
    assert sorted(path.name for path in folder.iterdir()) == before
    assert Path("password").read_bytes() == b"correct horse battery\r\n"
    assert not any(word in result.stderr.split() for word in WORDS.split())


def test_import_prompts_for_words_and_password(folder: Path) -> None:
    """On a terminal; neither is echoed."""
    command = [sys.executable, "-m", "signer", "keys", "seed", "import", str(folder / "seed.json"), "--n", "2"]
    with on_terminal(command, ENVIRONMENT) as terminal:
        terminal.wait_for("Words: ")
        terminal.type(WORDS + "\n")
        seen = terminal.wait_for("Password of the new file")
        terminal.type("correct horse battery\n")
        terminal.wait_for("Repeat the password: ", after=seen)
        terminal.type("correct horse battery\n")
        assert terminal.end() == 0, terminal.shown
        assert OWNERS[0] in terminal.shown
        assert WORDS.rpartition(" ")[2] not in terminal.shown
    assert sorted(owners_loaded(folder)) == sorted(OWNERS[:3])


def test_words_are_no_argument(folder: Path) -> None:
    """Other users of the machine can see arguments."""
    done = subprocess.run(
        [sys.executable, "-m", "signer", "keys", "seed", "import", str(folder / "seed.json"), *WORDS.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert not (folder / "seed.json").exists()
