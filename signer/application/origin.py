"""Which request of which caller the current work belongs to.

The HTTP layer sets ``ORIGIN`` once for each request. Log lines carry it, and so does work that outlives the request.
Work that no request started, such as recovery, has none.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Trace:
    """The caller's trace (W3C Trace Context): its id and its flags, both in hex."""

    id: str
    flags: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The request behind a piece of work.

    Attributes:
        request_id: the caller's ``X-Request-Id``, or one that we made.
        caller: the caller's name in the settings; ``None`` before it is known.
        trace: from the caller's ``traceparent``; ``None`` if it sent none. We never make one.
    """

    request_id: str
    caller: str | None = None
    trace: Trace | None = None


ORIGIN: Final[ContextVar[Origin | None]] = ContextVar("origin", default=None)
"""The origin of the work in this context; ``None`` if no request started it."""
