"""The registry: one table, lazily imported, and errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyBackendNotInstalled, KeyBackendUnknown, KeyUriInvalid
from signer.adapters.keys.keystore.backend import KeystoreBackend
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME, BackendEntry, backend_for
from tests.support.fakes.keys import backend_resources


def test_a_keystore_uri_makes_the_keystore_backend() -> None:
    """The scheme picks the backend, and nothing is opened yet."""
    backend = backend_for("keystore:/nowhere?password_file=/nowhere/pw", backend_resources())
    assert isinstance(backend, KeystoreBackend)
    assert backend.uri == "keystore:/nowhere"


@pytest.mark.parametrize(
    "uri",
    [
        "keystore:/keys",
        "keystore:/keys?password_file=/a&password_dir=/b",
        "keystore:/keys?password_file=/a&colour=red",
        "keystore://host/keys?password_file=/a",
        "keystore:?password_file=/a",
        "keystore:/keys?password_file=%00",
    ],
)
def test_a_keystore_uri_is_checked_before_anything_is_opened(uri: str) -> None:
    """Exactly one place for passwords, no unknown parameter, no host, a path."""
    with pytest.raises(KeyUriInvalid):
        backend_for(uri, backend_resources())


def test_an_unknown_scheme_lists_the_known() -> None:
    """A refusal names every backend that there is."""
    with pytest.raises(KeyBackendUnknown, match=r"'keystor'.*keystore"):
        backend_for("keystor:/keys", backend_resources())


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose SDK is not there says which extra brings it."""
    (tmp_path / "backend_with_an_sdk.py").write_text("import sdk_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = {"hsm": BackendEntry("backend_with_an_sdk", "open_hsm", extra="hsm")}
    with pytest.raises(KeyBackendNotInstalled, match=r"sdk_that_nobody_has.*pip install challenge-signer\[hsm\]"):
        backend_for("hsm:slot", backend_resources(), backends=table)


def test_a_module_of_ours_that_is_missing_is_our_defect() -> None:
    """A wrong line in the table is not taken for a missing extra."""
    table = {"hsm": BackendEntry("signer.adapters.keys.no_such_backend", "open_hsm", extra="hsm")}
    with pytest.raises(ModuleNotFoundError):
        backend_for("hsm:slot", backend_resources(), backends=table)


def test_every_line_of_the_table_holds() -> None:
    """Every backend's module has the factory that the table names, and no backend is loaded with the registry."""
    names = sorted({entry.module for entry in BACKEND_FOR_SCHEME.values()})
    factories = sorted((entry.module, entry.factory) for entry in BACKEND_FOR_SCHEME.values())
    program = (
        "import importlib, sys\n"
        "import signer.adapters.keys.registry, signer.adapters.keys.ring\n"
        f"assert not [name for name in {names!r} if name in sys.modules]\n"
        f"for module, factory in {factories!r}:\n"
        "    assert callable(getattr(importlib.import_module(module), factory))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
