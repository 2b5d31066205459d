"""The events of the service and of what it depends on. ``http_events`` and ``challenge_events`` have the others."""

from __future__ import annotations

from typing import Final

from signer.observability.event import FAILURE_FIELDS, OUTAGE_FIELDS, event

RECOVERY_UNEXPECTED_ERROR: Final = event(
    "recovery.unexpected_error",
    "error",
    "Recovery of a challenge failed with an unexpected error; it continues with the others: a bug in this service.",
    *FAILURE_FIELDS,
    action="Report error, frames and the version in service.started to the developers. The challenge is tried again.",
    alert="ticket",
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
SERVICE_NOT_READY: Final = event(
    "service.not_ready",
    "warning",
    "The process has started, and these checks of readiness fail; written when others fail as well.",
    "checks",
    "codes",
    "reason",
    action="Mend what reason names. GET /readyz shows the checks of each replica.",
    alert="ticket",
)
SERVICE_READY_AGAIN: Final = event("service.ready_again", "info", "All checks of readiness pass again.", "duration_ms")
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
    "service.exposed",
    "warning",
    "A measure that protects the process's memory failed.",
    "measure",
    "reason",
    action="Change the platform as reason says, or accept that other processes may read the keys: docs/keys/memory.md.",
    alert="ticket",
)
SERVICE_FAILED: Final = event(
    "service.failed",
    "error",
    "The service could not start, or ended because of an unexpected error: then the line has error and frames.",
    "reason",
    *FAILURE_FIELDS,
    action="Correct what reason names, then start again. signer config check --files --online tries the settings. "
    "Report error, frames and the version in service.started to the developers.",
    alert="page",
)
SERVICE_UNEXPECTED_ERROR: Final = event(
    "service.unexpected_error",
    "error",
    "Recovery, the watch of readiness or the watch of key files has ended with an unexpected error: a bug in this "
    "service. The replica still serves requests.",
    "error",
    "frames",
    action="Restart this replica. Report error, frames and the version in service.started to the developers.",
    alert="page",
)
WORKER_ENDED: Final = event(
    "worker.ended",
    "error",
    "A worker process has ended unexpectedly, count times without a minute in between. If the line has duration_ms, a "
    "new process has its place and begins after this time; else the service stops.",
    "reason",
    "count",
    "duration_ms",
    action="Read this worker's last lines before this one. If there are none and reason is SIGKILL, look for the "
    "container's memory limit; after SIGSEGV or SIGABRT, suspect a native library, such as that of a PKCS#11 token.",
    alert="ticket",
)

KEYS_LOADING: Final = event("keys.loading", "info", "Keys are being loaded.", "loaded", "expected")
KEYS_LOADED: Final = event(
    "keys.loaded", "info", "Initial key load finished.", "loaded", "missing", "failed", "duration_ms"
)
KEY_FAILED: Final = event(
    "keys.failed",
    "error",
    "One key could not be loaded. If it was loaded before, it stays in use until it opens or is gone.",
    "key_uri",
    "cause",
    "reason",
    action="Mend the key as reason says, then POST /v1/keys/reload. signer keys check tries all keys.",
    alert="ticket",
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
    action="Report error, frames and the version in service.started to the developers. Then reload again.",
    alert="ticket",
)
KEY_BACKEND_DOWN: Final = event(
    "keys.backend_down",
    "error",
    "A loaded key backend has failed; written again every minute until it works. It is tried again "
    "every few seconds. A token makes this replica unready meanwhile, a KMS does not. Of a KMS it may be one key.",
    "key_uri",
    *OUTAGE_FIELDS,
    action="Mend the key backend as reason says. A restart is not needed.",
    alert="page",
)
KEY_BACKEND_UP: Final = event(
    "keys.backend_up", "info", "A key backend that had failed works again.", "key_uri", *OUTAGE_FIELDS
)

CARD_API_DOWN: Final = event(
    "card_api.down",
    "error",
    "The card API does not work for this service, for the reason in cause; written again every minute until it does.",
    *OUTAGE_FIELDS,
    action="Mend what reason names; docs/operations.md lists the causes. Signatures wait for delivery meanwhile.",
    alert="page",
)
CARD_API_UP: Final = event(
    "card_api.up", "info", "The card API works again; duration_ms is the outage's.", *OUTAGE_FIELDS
)
CARD_API_BREAKER_OPENED: Final = event(
    "card_api.breaker_opened",
    "warning",
    "The circuit breaker opened after repeated failures of the card API and stays open for duration_ms; opening counts "
    "the openings in a row.",
    "opening",
    *OUTAGE_FIELDS,
    action="Mend what reason names: the card API, or the network to it. What is signed is delivered when it works "
    "again, if that is before the challenge expires.",
    alert="ticket",
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
    *OUTAGE_FIELDS,
    action="Mend the token as reason says: docs/keys/request-key.md. A restart is not needed.",
    alert="page",
)
REQUEST_KEY_UP: Final = event("card_api.request_key_up", "info", "The request key works again.", *OUTAGE_FIELDS)
CLOCK_SKEWED: Final = event(
    "clock.skewed",
    "warning",
    "The card API's clock differs from ours by more than is tolerated; positive if it is ahead.",
    "skew_seconds",
    action="Check the time synchronisation of this machine. If its clock is right, tell the operator of the card API.",
    alert="ticket",
)
CLOCK_AGREED: Final = event(
    "clock.agreed",
    "info",
    "The card API's clock and ours agree again, duration_ms after they began to differ.",
    "skew_seconds",
    "duration_ms",
)

STORE_DOWN: Final = event(
    "store.down",
    "error",
    "Redis does not work for this service, for the reason in cause; written again every minute until it does.",
    *OUTAGE_FIELDS,
    action="Mend what reason names; docs/operations.md lists the causes. Nothing is signed or lost meanwhile.",
    alert="page",
)
STORE_UP: Final = event("store.up", "info", "Redis works again; duration_ms is the outage's.", *OUTAGE_FIELDS)
STORE_WARNING: Final = event(
    "store.warning",
    "warning",
    "Redis works, but its configuration can lose records.",
    "reason",
    action="Change the configuration of Redis as reason says: docs/redis.md.",
    alert="ticket",
)
STORE_RECORD_DAMAGED: Final = event(
    "store.record_damaged",
    "error",
    "The data of a key in Redis is missing in part, malformed or of another type. Nothing is signed or sent with it.",
    "redis_key",
    action="Find out who else writes to this Redis. docs/redis.md says what happens and when to delete the key.",
    alert="ticket",
)
STORE_JUNK_REMOVED: Final = event(
    "store.junk_removed",
    "warning",
    "Recovery removed members without an unsettled record from its indexes in Redis, count of them in one round.",
    "count",
    action="Find out who else writes to this Redis, or whether it lost data.",
    alert="ticket",
)
STORE_INDEXES_FAILED: Final = event(
    "store.indexes_failed",
    "error",
    "These indexes in Redis cannot be read, so nothing is signed or recovered in their shards; the others work.",
    "redis_keys",
    "reason",
    action="If a key has another type, delete it: docs/redis.md. Find out who wrote it. Other reasons: mend Redis "
    "as reason says.",
    alert="page",
)
JUDGE_PASSED: Final = event(
    "judge.passed", "info", "Self-check passed: siwe and this service's parser agree.", "duration_ms"
)
JUDGE_FAILED: Final = event(
    "judge.failed",
    "error",
    "Self-check failed: siwe and this service's parser disagree, or siwe did not run.",
    "reason",
    action="Install the release again as it was built. If it still fails, report reason to the developers; nothing "
    "is signed.",
    alert="page",
)
LOG_LINES_LOST: Final = event(
    "log.lines_lost",
    "error",
    "The log could not be written in time: count lines are missing before this one.",
    "count",
    action="Check the program that reads standard output, and its disk. Redis still has the state of each challenge.",
    alert="ticket",
)
LIBRARY_MESSAGE: Final = event(
    "library.message",
    "warning",
    "A library logged a message, at this level or at error.",
    "logger",
    "message",
    *FAILURE_FIELDS,
    raised_level="error",
    action="Nothing for a single one. Report messages that repeat, with logger and frames, to the developers.",
    alert="ticket",
)
