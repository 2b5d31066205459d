"""A Lua script, and the name under which Redis caches it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script, and the name under which Redis keeps it (SHA-1 of the source, as ``EVALSHA`` has it)."""

    source: str
    sha1: str

    @classmethod
    def of(cls, source: str) -> Script:
        """Name ``source``."""
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
