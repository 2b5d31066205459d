"""``harden`` in separate processes, checked with the kernel."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from signer.cli import hardening
from signer.cli.hardening import harden

_DROP_ROOT = """\
import ctypes, json, os, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""
_HARDENED = (
    "from signer.cli.hardening import harden\n"
    + _DROP_ROOT
    + """\
prctl = ctypes.CDLL(None).prctl
prctl(4, 1, 0, 0, 0)  # dumpable, as a process is that never changed its user
print(json.dumps(prctl(3, 0, 0, 0, 0)), flush=True)
sys.stdin.readline()
done = harden()
print(json.dumps([prctl(3, 0, 0, 0, 0), done.active, dict(done.failed)]), flush=True)
sys.stdin.readline()
"""
)
_READER = (
    _DROP_ROOT
    + """\
try:
    open(f"/proc/{sys.argv[1]}/environ", "rb").read()
    open(f"/proc/{sys.argv[1]}/maps", "rb").read()
    print("read")
except PermissionError:
    print("refused")
"""
)


def read_memory(pid: int) -> str:
    """Try to read a process's memory from another process of the same user; return ``read`` or ``refused``."""
    done = subprocess.run([sys.executable, "-c", _READER, str(pid)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_hardened_process_cannot_be_read_by_the_same_user() -> None:
    """It could be read before; afterwards "dumpable" is 0 and only root can."""
    with subprocess.Popen(
        [sys.executable, "-c", _HARDENED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == 1
        assert read_memory(process.pid) == "read"
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [0, ["core_dumps_off", "not_traceable"], {}]
        assert read_memory(process.pid) == "refused"
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits
        process.stdin.write("end\n")


def test_failed_measure_has_a_reason_and_does_not_prevent_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a platform without prctl, core dumps are still disabled."""

    class OtherPlatform:
        platform = "sunos5"

    monkeypatch.setattr(hardening, "sys", OtherPlatform)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    done = harden()
    assert done.active == ("core_dumps_off",)
    assert done.failed == {"not_traceable": "there is no prctl on sunos5"}
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) or before == (0, 0)


def test_limit_that_the_kernel_ignores_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """``setrlimit`` did not raise, but ``getrlimit`` returns another limit."""
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (1, 1))
    assert harden().failed == {"core_dumps_off": "the kernel did not apply the limit"}
