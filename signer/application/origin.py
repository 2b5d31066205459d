"""On whose behalf the present work runs: which request of which caller.

The web sets it once for a request; what is written down meanwhile carries it, and so does work that the request started
and that outlives it. Work that nobody asked for (recovery) has none.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a piece of work comes from.

    Attributes:
        request_id: the caller's ``X-Request-Id``, or ours.
        caller: the caller's name in the settings; ``None`` before it is known.
    """

    request_id: str
    caller: str | None = None


ORIGIN: Final[ContextVar[Origin | None]] = ContextVar("origin", default=None)
"""The origin of the work in this context; ``None`` where nobody asked for it."""
