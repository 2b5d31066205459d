"""The events of the service itself. Those of challenges and customers are in ``challenge_events``."""

from __future__ import annotations

from typing import Final

from signer.observability.event import FAILURE_FIELDS, RECORD_FIELDS, event

HTTP_REQUEST: Final = event(
    "http.request",
    "info",
    "The canonical line of a request. A request that was cut off has no status.",
    *RECORD_FIELDS,
    "method",
    "route",
    "status",
    "bytes_in",
    "duration_ms",
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
)
RECOVERY_UNEXPECTED_ERROR: Final = event(
    "recovery.unexpected_error",
    "error",
    "Recovery of a challenge failed with an unexpected error; it continues with the others: a bug in this service.",
    *FAILURE_FIELDS,
)

SERVICE_STARTED: Final = event(
    "service.started",
    "info",
    "The process listens; requests are not accepted yet.",
    "version",
    "python",
    "host",
    "port",
)
SERVICE_READY: Final = event("service.ready", "info", "Requests are accepted.", "host", "port", "duration_ms")
SERVICE_STOPPING: Final = event("service.stopping", "info", "A signal asked the process to stop.", "reason")
SERVICE_STOPPED: Final = event(
    "service.stopped",
    "info",
    "The process has drained; left is the number of tasks that were handed back for recovery.",
    "left",
    "duration_ms",
)
SERVICE_HARDENED: Final = event(
    "service.hardened", "info", "The measures that protect the process's memory and are in force.", "held"
)
SERVICE_EXPOSED: Final = event(
    "service.exposed", "warning", "A measure that protects the process's memory failed.", "measure", "reason"
)
SERVICE_FAILED: Final = event("service.failed", "error", "The service could not start.", "reason", *FAILURE_FIELDS)

KEYS_LOADING: Final = event("keys.loading", "info", "Keys are being loaded.", "loaded", "expected")
KEYS_LOADED: Final = event(
    "keys.loaded", "info", "Initial key load finished.", "loaded", "missing", "failed", "duration_ms"
)
KEY_FAILED: Final = event(
    "keys.failed",
    "error",
    "One key could not be loaded. If it was loaded before, it stays in use until it opens or is gone.",
    "key_uri",
    "reason",
)
KEYS_RELOADED: Final = event(
    "keys.reloaded",
    "info",
    "The keys were reloaded after a request, a signal or a change of files; the counts are of owners.",
    "reload_id",
    "cause",
    "added",
    "removed",
    "unchanged",
    "kept",
    "failed",
    "duration_ms",
)
KEYS_RELOAD_FAILED: Final = event(
    "keys.reload_failed",
    "error",
    "A reload failed with an unexpected error; the keys are unchanged: a bug in this service.",
    "reload_id",
    "cause",
    *FAILURE_FIELDS,
)
KEY_BACKEND_DOWN: Final = event(
    "keys.backend_down",
    "error",
    "A loaded key backend has failed. It is retried; this replica is not ready until it works again.",
    "key_uri",
    "reason",
)
KEY_BACKEND_UP: Final = event("keys.backend_up", "info", "A key backend that had failed works again.", "key_uri")

CARD_API_BREAKER_OPENED: Final = event(
    "card_api.breaker_opened",
    "warning",
    "The circuit breaker opened after repeated failures of the card API and stays open for duration_ms; opening counts "
    "the openings in a row.",
    "opening",
    "duration_ms",
)
CARD_API_BREAKER_CLOSED: Final = event(
    "card_api.breaker_closed",
    "info",
    "The card API works again, duration_ms after the circuit breaker first opened.",
    "openings",
    "duration_ms",
)
REQUEST_KEY_DOWN: Final = event(
    "card_api.request_key_down",
    "error",
    "The token with the request key has stopped working; it is tried again, and readiness is false meanwhile.",
    "reason",
)
REQUEST_KEY_UP: Final = event("card_api.request_key_up", "info", "The request key works again.")
CLOCK_SKEWED: Final = event(
    "clock.skewed",
    "warning",
    "The card API's clock differs from ours by more than is tolerated; positive if it is ahead.",
    "skew_seconds",
)
CLOCK_AGREED: Final = event("clock.agreed", "info", "The card API's clock and ours agree again.", "skew_seconds")

STORE_WARNING: Final = event(
    "store.warning", "warning", "Redis works, but its configuration can lose records.", "reason"
)
STORE_RECORD_DAMAGED: Final = event(
    "store.record_damaged",
    "error",
    "The data of a key in Redis is missing in part, malformed or of another type. Nothing is signed or sent with it.",
    "redis_key",
)
STORE_JUNK_REMOVED: Final = event(
    "store.junk_removed",
    "warning",
    "Recovery removed members without an unsettled record from its indexes in Redis, count of them in one round.",
    "count",
)
STORE_INDEXES_FAILED: Final = event(
    "store.indexes_failed",
    "error",
    "These indexes in Redis cannot be read, so nothing is signed or recovered in their shards; the others work.",
    "redis_keys",
    "reason",
)
JUDGE_PASSED: Final = event(
    "judge.passed", "info", "Self-check passed: siwe and this service's parser agree.", "duration_ms"
)
JUDGE_FAILED: Final = event(
    "judge.failed",
    "error",
    "Self-check failed: siwe and this service's parser disagree, or siwe did not run.",
    "reason",
)
LOG_LINES_LOST: Final = event(
    "log.lines_lost",
    "error",
    "The log could not be written, or not fast enough, and these lines are missing before this one.",
    "count",
)
LIBRARY_MESSAGE: Final = event(
    "library.message",
    "warning",
    "A library logged a message, at this level or at error.",
    "logger",
    "message",
    *FAILURE_FIELDS,
    raised_level="error",
)
