"""What the process does against others that would read its memory, asked of the kernel, in processes of their own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from signer.cli import hardening
from signer.cli.hardening import harden

_AS_NOBODY = """\
import ctypes, json, os, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""
_HOLDER = (
    "from signer.cli.hardening import harden\n"
    + _AS_NOBODY
    + """\
prctl = ctypes.CDLL(None).prctl
prctl(4, 1, 0, 0, 0)  # as any process is that did not change its user
print(json.dumps(prctl(3, 0, 0, 0, 0)), flush=True)
sys.stdin.readline()
done = harden()
print(json.dumps([prctl(3, 0, 0, 0, 0), done.held, dict(done.failed)]), flush=True)
sys.stdin.readline()
"""
)
_READER = (
    _AS_NOBODY
    + """\
try:
    open(f"/proc/{sys.argv[1]}/environ", "rb").read()
    open(f"/proc/{sys.argv[1]}/maps", "rb").read()
    print("read")
except PermissionError:
    print("refused")
"""
)


def reads(pid: int) -> str:
    """Have another process of the same user look into a process."""
    done = subprocess.run([sys.executable, "-c", _READER, str(pid)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_process_of_the_same_user_reads_nothing_any_more() -> None:
    """What could be read before cannot be read afterwards, without root's rights: dumpable is 0."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert json.loads(holder.stdout.readline()) == 1
        assert reads(holder.pid) == "read"
        holder.stdin.write("go on\n")
        holder.stdin.flush()
        assert json.loads(holder.stdout.readline()) == [0, ["core_dumps_off", "not_traceable"], {}]
        assert reads(holder.pid) == "refused"
        limits = Path(f"/proc/{holder.pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits
        holder.stdin.write("end\n")


def test_a_measure_that_cannot_be_taken_is_told_and_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without prctl still gets no core files, and the reason is there for the log."""

    class OtherPlatform:
        platform = "sunos5"

    monkeypatch.setattr(hardening, "sys", OtherPlatform)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    done = harden()
    assert done.held == ("core_dumps_off",)
    assert done.failed == {"not_traceable": "there is no prctl on sunos5"}
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) or before == (0, 0)


def test_a_limit_that_is_not_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says afterwards counts, not that nothing was raised."""
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (1, 1))
    assert harden().failed == {"core_dumps_off": "the limit was not taken"}
