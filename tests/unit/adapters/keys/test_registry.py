"""The registry of key backends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyBackendError, KeyUriInvalid
from signer.adapters.keys.keystore.backend import KeystoreBackend
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME, BackendEntry, backend_for
from tests.support.fakes.keys import backend_resources


def test_scheme_selects_the_backend() -> None:
    """Nothing is opened yet."""
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
def test_invalid_keystore_uri_is_refused_before_files_are_read(uri: str) -> None:
    """Exactly one password parameter, no unknown parameter, no host, a path."""
    with pytest.raises(KeyUriInvalid):
        backend_for(uri, backend_resources())


def test_unknown_scheme_is_refused_with_list_of_known_ones() -> None:
    """The error names every backend."""
    with pytest.raises(KeyUriInvalid, match=r"'keystor'.*keystore"):
        backend_for("keystor:/keys", backend_resources())


def test_missing_library_names_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the pip command."""
    (tmp_path / "backend_with_an_sdk.py").write_text("import sdk_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = {"hsm": BackendEntry("backend_with_an_sdk", "open_hsm", extra="hsm")}
    with pytest.raises(KeyBackendError, match=r"sdk_that_is_missing.*pip install challenge-signer\[hsm\]"):
        backend_for("hsm:slot", backend_resources(), backends=table)


def test_missing_module_of_the_service_is_not_taken_for_missing_extra() -> None:
    """A wrong entry of the table is a bug."""
    table = {"hsm": BackendEntry("signer.adapters.keys.no_such_backend", "open_hsm", extra="hsm")}
    with pytest.raises(ModuleNotFoundError):
        backend_for("hsm:slot", backend_resources(), backends=table)


def test_every_entry_of_the_table_has_its_factory() -> None:
    """No backend is imported with the registry."""
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
