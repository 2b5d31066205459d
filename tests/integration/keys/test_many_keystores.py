"""Many keystores: the memory budget of the settings is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.strong_keystores import write_strong_keystores

OPEN_MEMORY = 640
OTHER_MEMORY = 256
"""What Python, the libraries and a thousand keys may use, in MiB."""

_MEASURED = """\
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "signer", *sys.argv[1:]], capture_output=True, text=True)
print(json.dumps([done.returncode, done.stdout, done.stderr, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def peak_memory(directory: Path, count: int, n: int, open_memory: int) -> int:
    """Check keystores with ``signer keys check`` and return the process's peak memory, in MiB."""
    (directory / "keys").mkdir()
    (directory / "password").write_text("correct horse battery staple")
    owners = write_strong_keystores(directory / "keys", count, b"correct horse battery staple", n)
    uri = f"keystore:{directory / 'keys'}?password_file={directory / 'password'}"
    config = directory / "signer.toml"
    config.write_text(f'[keys]\nuris = ["{uri}"]\nopen_memory = {open_memory}\nopen_threads = 8\n')
    command = [sys.executable, "-c", _MEASURED, "keys", "check", "--config", str(config), "--json"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    status, rows, complaints, most = json.loads(done.stdout)
    assert status == 0, complaints
    assert [row["owner"] for row in json.loads(rows)] == owners
    assert {row["state"] for row in json.loads(rows)} == {"signs"}
    return int(most) // 1024  # KiB on Linux


@pytest.mark.heavy
def test_thousand_strong_keystores_open_within_memory_budget(tmp_path: Path) -> None:
    """Each needs 256 MiB and the budget is 640 MiB, so two of eight threads open at a time; all keys sign."""
    assert peak_memory(tmp_path, 1000, 262_144, OPEN_MEMORY) < OPEN_MEMORY + OTHER_MEMORY


def test_fifty_weak_keystores_open_within_memory_budget(tmp_path: Path) -> None:
    """The same with 16 MiB each and a budget of 40 MiB."""
    assert peak_memory(tmp_path, 50, 16_384, 40) < 40 + OTHER_MEMORY
