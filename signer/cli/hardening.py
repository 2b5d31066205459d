"""Keeps others from reading this process's memory, as far as the platform lets a process do that for itself.

* ``core_dumps_off``: no core file is written when the process crashes (``RLIMIT_CORE`` 0, soft and hard). A crash
  handler that the kernel pipes cores to (``core_pattern`` with ``|``) is bound by the next measure only.
* ``not_traceable``: nobody without ``CAP_SYS_PTRACE`` attaches a debugger, or reads ``/proc/<pid>/mem``, ``environ``
  or ``maps``, the same user included; and no core is dumped at all (Linux, ``PR_SET_DUMPABLE`` 0, ``prctl(2)``).

Neither keeps root out, nor a debugger with the capability: ``docs/keys/memory.md`` has the limits. A measure that
cannot be taken does not keep the service from starting: it is told, as a warning.
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
    """What has been done.

    Attributes:
        held: the measures that hold; each was looked at after it was taken.
        failed: those that do not, each with the reason.
    """

    held: tuple[str, ...]
    failed: Mapping[str, str]


def harden() -> Hardening:
    """Take every measure, and see whether it holds. Call it before any secret is read."""
    held: list[str] = []
    failed: dict[str, str] = {}
    for name, take in _MEASURES.items():
        try:
            take()
        except (OSError, ValueError) as error:
            failed[name] = getattr(error, "strerror", None) or str(error)
        else:
            held.append(name)
    return Hardening(tuple(held), failed)


def _no_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        raise OSError("the limit was not taken")


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
