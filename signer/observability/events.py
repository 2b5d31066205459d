"""The catalogue of log events. Every line that the service writes is one of them.

* Alerts and dashboards depend on the names: add events, never rename one.
* A field without a value is left out. Every line may also have the fields in ``COMMON``.
* ``customer_id`` and ``owner`` identify a customer: operators need this to store and erase logs. No field of any event
  may hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from signer.application.ports import EventName
from signer.observability.settings import LogLevel

COMMON: Final = frozenset({"timestamp", "level", "event", "request_id", "caller"})
"""Fields that every line may have; the last two only if a request caused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of log line.

    Attributes:
        name: the value of the field ``event``.
        level: of its lines.
        raised_level: of its lines in the cases that ``meaning`` names; the same if it names none.
        meaning: when it is written.
        fields: all that it may have in addition to ``COMMON``.
    """

    name: str
    level: LogLevel
    raised_level: LogLevel
    meaning: str
    fields: frozenset[str]


_events: Final[dict[str, Event]] = {}
CATALOGUE: Final[Mapping[str, Event]] = _events
"""Every event by its name."""


def _event(name: str, level: LogLevel, meaning: str, *fields: str, raised_level: LogLevel | None = None) -> Event:
    """Add an event to the catalogue and return it."""
    event = Event(name=name, level=level, raised_level=raised_level or level, meaning=meaning, fields=frozenset(fields))
    _events[name] = event
    return event


_CUSTOMER: Final = frozenset({"customer_id", "owner"})
_RECORD: Final = _CUSTOMER | {"challenge_id", "state", "code"}
_FAILURE: Final = frozenset({"error", "frames"})

CHALLENGE_EVENTS: Final[Mapping[EventName, Event]] = {
    EventName(event.name): event
    for event in (
        _event("customer.created", "info", "The card API has created a customer.", *_CUSTOMER, "idempotency_key"),
        _event(
            "customer.found",
            "info",
            "The card API had the customer already (409); its list of customers has the id.",
            *_CUSTOMER,
            "idempotency_key",
        ),
        _event(
            "customer.lookup_failed",
            "warning",
            "The card API has the customer already (409), and its id could not be found in the list of customers.",
            *_CUSTOMER,
            "code",
            "idempotency_key",
        ),
        _event("challenge.refused", "info", "A request was refused or failed; nothing was signed.", *_CUSTOMER, "code"),
        _event(
            "card_api.challenge_refused",
            "warning",
            "The card API issued a challenge that the parser or the policy refuses, by the rule in code. Nothing was "
            "signed: ownerId is wrong, the settings are, or the card API is faulty or compromised.",
            *_CUSTOMER,
            "code",
        ),
        _event(
            "challenge.conflicted",
            "warning",
            "The nonce is claimed for another message, or the message for another customer: a mistake or an attack.",
            *_CUSTOMER,
            "code",
        ),
        _event("challenge.claimed", "info", "The nonce is claimed for this message.", *_RECORD),
        _event(
            "challenge.released",
            "warning",
            "The key backend failed; the nonce stays claimed for this message and can be signed later.",
            *_RECORD,
            "key_uri",
        ),
        _event("challenge.signed", "info", "The signature is stored in Redis.", *_RECORD, "key_uri", "duration_ms"),
        _event(
            "challenge.taken_over",
            "info",
            "This replica continues a challenge that another replica or an earlier attempt did not settle.",
            *_RECORD,
            "attempt",
        ),
        _event(
            "challenge.delivered",
            "info",
            "The signature was sent to the card API; code is the meaning of the response. If nothing was sent, only "
            "challenge.deferred is written.",
            *_RECORD,
            "attempt",
            "status",
            "duration_ms",
            "idempotency_key",
        ),
        _event(
            "challenge.deferred",
            "warning",
            "The delivery will be tried again after duration_ms.",
            *_RECORD,
            "attempt",
            "duration_ms",
            "upstream_status",
        ),
        _event(
            "challenge.settled",
            "info",
            "The challenge is final. A warning if it is rejected or expired, except with the code not_forwarded.",
            *_RECORD,
            "attempt",
            "upstream_status",
            raised_level="warning",
        ),
        _event(
            "challenge.lease_lost",
            "warning",
            "Another replica took the challenge over while this one worked on it.",
            *_RECORD,
            "attempt",
        ),
    )
}
"""What the use cases report about challenges and customers."""

HTTP_REQUEST: Final = _event(
    "http.request",
    "info",
    "The canonical line of a request. A request that was cut off has no status.",
    *_RECORD,
    "method",
    "route",
    "status",
    "bytes_in",
    "duration_ms",
)
HTTP_PROBE: Final = _event(
    "http.probe",
    "debug",
    "A probe got 200. A probe that got another status is an http.request.",
    "method",
    "route",
    "status",
    "duration_ms",
)
HTTP_UNEXPECTED_ERROR: Final = _event(
    "http.unexpected_error",
    "error",
    "A request failed with an unexpected error and got 500: a bug in this service.",
    *_FAILURE,
)
RECOVERY_UNEXPECTED_ERROR: Final = _event(
    "recovery.unexpected_error",
    "error",
    "Recovery of a challenge failed with an unexpected error; it continues with the others: a bug in this service.",
    *_FAILURE,
)

SERVICE_STARTED: Final = _event(
    "service.started",
    "info",
    "The process listens; requests are not accepted yet.",
    "version",
    "python",
    "host",
    "port",
)
SERVICE_READY: Final = _event("service.ready", "info", "Requests are accepted.", "host", "port", "duration_ms")
SERVICE_STOPPING: Final = _event("service.stopping", "info", "A signal asked the process to stop.", "reason")
SERVICE_STOPPED: Final = _event(
    "service.stopped",
    "info",
    "The process has drained; left is the number of tasks that were handed back for recovery.",
    "left",
    "duration_ms",
)
SERVICE_HARDENED: Final = _event(
    "service.hardened", "info", "The measures that protect the process's memory and are in force.", "held"
)
SERVICE_EXPOSED: Final = _event(
    "service.exposed", "warning", "A measure that protects the process's memory failed.", "measure", "reason"
)
SERVICE_FAILED: Final = _event("service.failed", "error", "The service could not start.", "reason", *_FAILURE)

KEYS_LOADING: Final = _event("keys.loading", "info", "Keys are being loaded.", "loaded", "expected")
KEYS_LOADED: Final = _event(
    "keys.loaded", "info", "Initial key load finished.", "loaded", "missing", "failed", "duration_ms"
)
KEY_FAILED: Final = _event(
    "keys.failed",
    "error",
    "One key could not be loaded. If it was loaded before, it stays in use until it opens or is gone.",
    "key_uri",
    "reason",
)
KEYS_RELOADED: Final = _event(
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
KEYS_RELOAD_FAILED: Final = _event(
    "keys.reload_failed",
    "error",
    "A reload failed with an unexpected error; the keys are unchanged: a bug in this service.",
    "reload_id",
    "cause",
    *_FAILURE,
)
KEY_BACKEND_DOWN: Final = _event(
    "keys.backend_down",
    "error",
    "A loaded key backend has failed. It is retried; this replica is not ready until it works again.",
    "key_uri",
    "reason",
)
KEY_BACKEND_UP: Final = _event("keys.backend_up", "info", "A key backend that had failed works again.", "key_uri")

CARD_API_BREAKER_OPENED: Final = _event(
    "card_api.breaker_opened",
    "warning",
    "The circuit breaker opened after repeated failures of the card API and stays open for duration_ms; opening counts "
    "the openings in a row.",
    "opening",
    "duration_ms",
)
CARD_API_BREAKER_CLOSED: Final = _event(
    "card_api.breaker_closed",
    "info",
    "The card API works again, duration_ms after the circuit breaker first opened.",
    "openings",
    "duration_ms",
)
REQUEST_KEY_DOWN: Final = _event(
    "card_api.request_key_down",
    "error",
    "The token with the request key has stopped working; it is tried again, and readiness is false meanwhile.",
    "reason",
)
REQUEST_KEY_UP: Final = _event("card_api.request_key_up", "info", "The request key works again.")
CLOCK_SKEWED: Final = _event(
    "clock.skewed",
    "warning",
    "The card API's clock differs from ours by more than is tolerated; positive if it is ahead.",
    "skew_seconds",
)
CLOCK_AGREED: Final = _event("clock.agreed", "info", "The card API's clock and ours agree again.", "skew_seconds")

STORE_WARNING: Final = _event(
    "store.warning", "warning", "Redis works, but its configuration can lose records.", "reason"
)
STORE_RECORD_DAMAGED: Final = _event(
    "store.record_damaged",
    "error",
    "The data of a key in Redis is missing in part, malformed or of another type. Nothing is signed or sent with it.",
    "redis_key",
)
STORE_JUNK_REMOVED: Final = _event(
    "store.junk_removed",
    "warning",
    "Recovery removed members without an unsettled record from its indexes in Redis, count of them in one round.",
    "count",
)
STORE_INDEXES_FAILED: Final = _event(
    "store.indexes_failed",
    "error",
    "These indexes in Redis cannot be read, so nothing is signed or recovered in their shards; the others work.",
    "redis_keys",
    "reason",
)
JUDGE_PASSED: Final = _event(
    "judge.passed", "info", "Self-check passed: siwe and this service's parser agree.", "duration_ms"
)
JUDGE_FAILED: Final = _event(
    "judge.failed",
    "error",
    "Self-check failed: siwe and this service's parser disagree, or siwe did not run.",
    "reason",
)
LOG_LINES_LOST: Final = _event(
    "log.lines_lost",
    "error",
    "The log could not be written, or not fast enough, and these lines are missing before this one.",
    "count",
)
LIBRARY_MESSAGE: Final = _event(
    "library.message",
    "warning",
    "A library logged a message, at this level or at error.",
    "logger",
    "message",
    *_FAILURE,
    raised_level="error",
)


def irregularities(line: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a log line has that the catalogue does not allow. For tests."""
    event = CATALOGUE.get(str(line.get("event")))
    if event is None:
        return (f"unregistered event {line.get('event')!r}",)
    found = [f"unregistered field {name!r}" for name in sorted(line.keys() - event.fields - COMMON)]
    if line.get("level") not in {event.level, event.raised_level}:
        found.append(f"level {line.get('level')!r}")
    return tuple(f"{event.name}: {what}" for what in found)
