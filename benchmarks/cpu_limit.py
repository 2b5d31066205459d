"""Limits the CPU of a process as a container's limit does: a quota for each 100 ms, by cgroups (Linux, as root)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PERIOD_US: Final = 100_000
_V2: Final = Path("/sys/fs/cgroup")
_V1: Final = Path("/sys/fs/cgroup/cpu")
_NAME: Final = "signer-bench"


@contextmanager
def limited(pid: int, cores: float) -> Iterator[bool]:
    """Limit a process, which has to end before the context is closed; yield whether that is possible here."""
    group = (_V2 if (_V2 / "cgroup.controllers").exists() else _V1) / f"{_NAME}-{pid}"
    try:
        group.mkdir()
    except OSError:
        yield False
        return
    try:
        yield _move(group, pid, round(cores * _PERIOD_US))
    finally:
        group.rmdir()


def _move(group: Path, pid: int, quota: int) -> bool:
    try:
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        elif (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:  # the parent does not pass the controller on
            return False
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True
