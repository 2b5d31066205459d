"""Read the header ``traceparent`` (W3C Trace Context).

``tracestate`` is not read: it holds what the caller's tracing system tells itself, and the card API is another company.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from signer.application.origin import Trace

_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<id>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_KNOWN_FLAGS: Final = 0b11
"""``sampled`` and ``random-trace-id``. Others belong to later versions and must not be sent on."""


def trace_of(request: web.BaseRequest) -> Trace | None:
    """Return the trace that the request belongs to; ``None`` without a valid ``traceparent``."""
    given = request.headers.getall("traceparent", ())
    if len(given) != 1:
        return None
    found = _TRACEPARENT.fullmatch(given[0])
    if found is None or (found["version"] == "00" and found["more"]):  # only a later version may have more fields
        return None
    return Trace(found["id"], f"{int(found['flags'], 16) & _KNOWN_FLAGS:02x}")
