"""Protect this process's memory from other processes, as far as the platform allows.

* ``core_dumps_off``: a crash writes no core file (``RLIMIT_CORE`` 0, soft and hard). A crash handler to which the
  kernel pipes cores (``core_pattern`` with ``|``) ignores this limit, but not the next measure.
* ``not_traceable``: without ``CAP_SYS_PTRACE`` no process, not even of the same user, can attach a debugger or read
  ``/proc/<pid>/mem``, ``environ`` or ``maps``; no core is dumped at all (Linux: ``prctl(PR_SET_DUMPABLE, 0)``).

Neither stops root or a debugger with that capability; ``docs/keys/memory.md`` has the limits. If a measure fails, the
service starts and logs a warning.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_NOT_DUMPABLE: Final = 0


@dataclass(frozen=True, slots=True)
class Hardening:
    """The result of ``harden``.

    Attributes:
        active: the measures in force; each was verified.
        failed: the other measures, each with the reason.
    """

    active: tuple[str, ...]
    failed: Mapping[str, str]


def harden() -> Hardening:
    """Apply and verify every measure. Call it before any secret is read."""
    active: list[str] = []
    failed: dict[str, str] = {}
    for name, apply in _MEASURES.items():
        try:
            apply()
        except (OSError, ValueError) as error:
            failed[name] = getattr(error, "strerror", None) or str(error)
        else:
            active.append(name)
    return Hardening(tuple(active), failed)


def _no_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        raise OSError("the kernel did not apply the limit")


def _not_traceable() -> None:
    if sys.platform != "linux":
        raise OSError(f"there is no prctl on {sys.platform}")
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option in (_PR_SET_DUMPABLE, _PR_GET_DUMPABLE):
        if prctl(option, _NOT_DUMPABLE, 0, 0, 0) != _NOT_DUMPABLE:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_MEASURES: Final[Mapping[str, Callable[[], None]]] = {
    "core_dumps_off": _no_core_dumps,
    "not_traceable": _not_traceable,
}
