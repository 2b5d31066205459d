"""``signer request-key``: made in a file and in a real token, and what is registered with the card API."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.request_signing.local_key import load_request_key
from signer.cli import request_key
from signer.cli.main import main
from signer.simulator.request_signatures import RequestSigningKeys
from tests.support.softhsm import SoftHsmToken, folder_in_memory, softhsm


@pytest.fixture(autouse=True)
def _the_tests_process_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardening is for ever, and this process is not the command's: it has tests of its own."""
    monkeypatch.setattr(request_key, "harden", lambda: None)


@pytest.fixture
def token() -> Iterator[SoftHsmToken]:
    """An empty token."""
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        yield hsm.add_token()


def run(*arguments: object) -> Result:
    """Run ``signer request-key``."""
    return CliRunner().invoke(main, ["request-key", *map(str, arguments)])


def refused(result: Result, said: str, status: int = 1) -> None:
    """See that a command was refused, with a word why, and without a traceback."""
    assert (result.exit_code, said in result.output) == (status, True), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def check_shown(result: Result) -> bytes:
    """See that what is shown can be registered; gives the PEM."""
    assert result.exit_code == 0, result.output
    *_, registration = result.stdout.splitlines()
    pem = base64.b64decode(registration, validate=True)
    assert pem.decode() in result.stdout
    public_key = load_pem_public_key(pem)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert isinstance(public_key.curve, ec.SECP384R1)
    assert RequestSigningKeys({}).register(pem)  # as the card API's simulator does with the base64's bytes
    return pem


def test_new_makes_a_file_that_the_service_can_use(tmp_path: Path) -> None:
    """For its owner's eyes only, with a hint what to do next; what is printed is its public half, and no more."""
    file = tmp_path / "signing-key.pem"
    made = run("new", file)
    pem = check_shown(made)
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_request_key(file, "kid").public_pem == pem
    assert "PUT /v1/auth/signing" in made.stderr
    assert "PRIVATE" not in made.output
    assert check_shown(run("export-public", file)) == pem


def test_new_replaces_no_file(tmp_path: Path) -> None:
    """A key that may be registered already is not written over."""
    file = tmp_path / "signing-key.pem"
    file.write_text("precious")
    refused(run("new", file), "is there already; nothing was written")
    assert file.read_text() == "precious"
    refused(run("new", tmp_path / "nowhere" / "key.pem"), "cannot be written (No such file or directory)")


def test_the_target_left_out_is_the_settings_own(tmp_path: Path) -> None:
    """A key that the service will use is made where it will look for it."""
    settings = tmp_path / "signer.toml"
    settings.write_text(f'[card_api]\nsigning_key_file = "{tmp_path / "key.pem"}"\n')
    pem = check_shown(run("new", "--config", settings))
    printed = json.loads(run("export-public", "--config", settings, "--json").stdout)
    assert printed == {
        "key": str(tmp_path / "key.pem"),
        "publicKeyPem": pem.decode(),
        "publicKeyBase64": base64.b64encode(pem).decode(),
    }


@pytest.mark.parametrize(
    ("target", "said", "status"),
    [
        ("keystore:keys", "cannot be keystore: name a file, or a pkcs11: URI", 2),
        ("awskms:alias/x", "cannot be awskms", 2),
        ("pkcs11:token=cards?module-path=/nowhere.so", "add object=", 1),
        ("pkcs11:token=cards;object=x?module-path=/nowhere.so", "/nowhere.so", 1),
    ],
)
def test_a_place_that_cannot_be_used_is_said(target: str, said: str, status: int, tmp_path: Path) -> None:
    """Nothing is made, and no file appears under a URI's name."""
    before = set(Path.cwd().iterdir())
    refused(run("export-public", target), said, status)
    if "nowhere" not in target:
        refused(run("new", target), said, status)
    assert set(Path.cwd().iterdir()) == before
    refused(run("export-public", tmp_path / "absent"), "cannot be read (No such file or directory)")


@pytest.mark.needs("softhsm2-util")
def test_new_has_the_token_make_the_key(token: SoftHsmToken) -> None:
    """The key stays inside; its name is shown without the PIN's file, and is taken once."""
    uri = token.uri(";object=requests")
    made = run("new", uri)
    pem = check_shown(made)
    assert made.stdout.startswith("pkcs11:token=cards;object=requests;id=")
    assert str(token.pin_file) not in made.output
    assert check_shown(run("export-public", uri)) == pem
    refused(run("new", uri), "has a key of that label already")
    refused(run("new", token.uri()), "add object=")


@pytest.mark.needs("softhsm2-util")
def test_a_process_of_its_own(token: SoftHsmToken) -> None:
    """As a person runs it: hardened, in the environment that SoftHSM needs."""
    command = [sys.executable, "-m", "signer", "request-key", "new", token.uri(";object=requests"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert json.loads(done.stdout)["publicKeyPem"].startswith("-----BEGIN PUBLIC KEY-----\n")
