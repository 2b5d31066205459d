"""The events of HTTP requests."""

from __future__ import annotations

from typing import Final

from signer.observability.event import FAILURE_FIELDS, RECORD_FIELDS, event

HTTP_REQUEST: Final = event(
    "http.request",
    "info",
    "The canonical line of a request. A request that was cut off has no status. A warning if a caller got a 5xx that "
    "says more than that this replica is busy or stops.",
    *RECORD_FIELDS,
    "method",
    "route",
    "status",
    "bytes_in",
    "duration_ms",
    raised_level="warning",
    action="For a warning: look up code in docs/errors.md. A line of the same time says which part is down.",
)
HTTP_PROBE: Final = event(
    "http.probe",
    "debug",
    "A probe got 200. A probe that got another status is an http.request.",
    "method",
    "route",
    "status",
    "duration_ms",
)
HTTP_UNEXPECTED_ERROR: Final = event(
    "http.unexpected_error",
    "error",
    "A request failed with an unexpected error and got 500: a bug in this service.",
    *FAILURE_FIELDS,
    action="Report error, frames and the version in service.started to the developers. The caller may repeat the "
    "request.",
    alert="ticket",
)
HTTP_CONNECTIONS_CLOSED: Final = event(
    "http.connections_closed",
    "warning",
    "There are http.max_connections: for each new one the one that has been idle longest was closed or, if none was "
    "idle, the new one was refused. At most one line in a minute; count says how many since the last line.",
    "count",
    action="Find out who opens them: only callers, probes and your monitoring should reach the port. If it is callers, "
    "let them use connections again, raise http.max_connections, or add replicas.",
    alert="ticket",
)
