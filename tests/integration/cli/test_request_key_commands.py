"""``signer request-key``: keys in files and in a real token, and the output for the registration."""

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
def _without_hardening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardening cannot be undone, and other tests run in this process."""
    monkeypatch.setattr(request_key, "harden", lambda: None)


@pytest.fixture
def token() -> Iterator[SoftHsmToken]:
    """Return an empty token."""
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        yield hsm.add_token()


def run(*arguments: object) -> Result:
    """Run ``signer request-key``."""
    return CliRunner().invoke(main, ["request-key", *map(str, arguments)])


def assert_refused(result: Result, text: str, status: int = 1) -> None:
    """Check exit status and text of a refused command, without a traceback."""
    assert (result.exit_code, text in result.output) == (status, True), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def shown_pem(result: Result) -> bytes:
    """Check that the output can be registered at the card API; return the PEM."""
    assert result.exit_code == 0, result.output
    *_, registration = result.stdout.splitlines()
    pem = base64.b64decode(registration, validate=True)
    assert pem.decode() in result.stdout
    public_key = load_pem_public_key(pem)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert isinstance(public_key.curve, ec.SECP384R1)
    assert RequestSigningKeys({}).register(pem)  # as the card API's simulator does with the base64's bytes
    return pem


def test_new_creates_a_file_that_the_service_can_load(tmp_path: Path) -> None:
    """Mode 0600. The output is the public key and the next step."""
    file = tmp_path / "signing-key.pem"
    made = run("new", file)
    pem = shown_pem(made)
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_request_key(file, "kid").public_pem == pem
    assert "PUT /v1/auth/signing" in made.stderr
    assert "PRIVATE" not in made.output
    assert shown_pem(run("export-public", file)) == pem


def test_new_does_not_replace_a_file(tmp_path: Path) -> None:
    """The key may be registered already."""
    file = tmp_path / "signing-key.pem"
    file.write_text("precious")
    assert_refused(run("new", file), "already exists; nothing was written")
    assert file.read_text() == "precious"
    assert_refused(run("new", "foo:bar"), 'There is no key backend "foo"', 2)
    assert_refused(run("new", tmp_path / "nowhere" / "key.pem"), "cannot be written (No such file or directory)")


def test_default_target_is_the_key_of_the_settings(tmp_path: Path) -> None:
    """The key is created where the service loads it."""
    settings = tmp_path / "signer.toml"
    settings.write_text(f'[card_api]\nsigning_key_file = "{tmp_path / "key.pem"}"\n')
    pem = shown_pem(run("new", "--config", settings))
    printed = json.loads(run("export-public", "--config", settings, "--json").stdout)
    assert printed == {
        "key": str(tmp_path / "key.pem"),
        "publicKeyPem": pem.decode(),
        "publicKeyBase64": base64.b64encode(pem).decode(),
    }


@pytest.mark.parametrize(
    ("target", "text", "status"),
    [
        ("keystore:keys", "cannot be keystore: name a file or a pkcs11: URI", 2),
        ("awskms:alias/x", "cannot be awskms", 2),
        ("pkcs11:token=cards?module-path=/nowhere.so", "add object=", 1),
        ("pkcs11:token=cards;object=x?module-path=/nowhere.so", "/nowhere.so", 1),
    ],
)
def test_unusable_target_is_refused(target: str, text: str, status: int, tmp_path: Path) -> None:
    """Nothing is created, and no file appears under a URI's name."""
    before = set(Path.cwd().iterdir())
    assert_refused(run("export-public", target), text, status)
    if "nowhere" not in target:
        assert_refused(run("new", target), text, status)
    assert set(Path.cwd().iterdir()) == before
    assert_refused(run("export-public", tmp_path / "absent"), "cannot be read (No such file or directory)")


@pytest.mark.needs("softhsm2-util")
def test_new_generates_the_key_in_the_token(token: SoftHsmToken) -> None:
    """The output shows its URI without the PIN file. The label can be used once."""
    uri = token.uri(";object=requests")
    made = run("new", uri)
    pem = shown_pem(made)
    assert made.stdout.startswith("pkcs11:token=cards;object=requests;id=")
    assert str(token.pin_file) not in made.output
    assert shown_pem(run("export-public", uri)) == pem
    assert_refused(run("new", uri), "already has a key with that label")
    assert_refused(run("new", token.uri()), "add object=")


@pytest.mark.needs("softhsm2-util")
def test_command_in_its_own_process(token: SoftHsmToken) -> None:
    """Hardened, with the environment that SoftHSM needs."""
    command = [sys.executable, "-m", "signer", "request-key", "new", token.uri(";object=requests"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert json.loads(done.stdout)["publicKeyPem"].startswith("-----BEGIN PUBLIC KEY-----\n")
