"""The catalogue of events: every line that the service itself writes is one of these.

* Alerts and dashboards are written against the names: append; never rename.
* A field is left out where it has no value. Fields that every line may have are in ``COMMON``.
* ``Event.personal`` names the fields that lead to a customer, for whoever ships, keeps and erases logs. No field of any
  event may hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from signer.application.ports import EventName

Level = Literal["debug", "info", "warning", "error"]

COMMON: Final = frozenset({"timestamp", "level", "event", "request_id", "caller"})
"""Fields of every line: the last two where a request is behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of line.

    Attributes:
        name: the value of its field ``event``.
        level: always this one.
        meaning: when it is written.
        fields: all that it may hold beside ``COMMON``.
    """

    name: str
    level: Level
    meaning: str
    fields: frozenset[str] = frozenset()

    @property
    def personal(self) -> frozenset[str]:
        """Those of its fields that lead to a customer."""
        return self.fields & _WHOSE


_WHOSE: Final = frozenset({"customer_id", "owner"})
_MOVE: Final = _WHOSE | {"challenge_id", "state", "code"}
_FAILURE: Final = frozenset({"error", "frames"})


def _event(name: str, level: Level, meaning: str, *fields: str) -> Event:
    return Event(name=name, level=level, meaning=meaning, fields=frozenset(fields))


CHALLENGE_EVENTS: Final[Mapping[EventName, Event]] = {
    EventName.CUSTOMER_CREATED: _event(
        "customer.created",
        "info",
        "The card API has created a customer.",
        *_WHOSE,
        "idempotency_key",
    ),
    EventName.REFUSED: _event(
        "challenge.refused",
        "info",
        "A request was refused, or failed; nothing was signed for it.",
        *_WHOSE,
        "code",
    ),
    EventName.CONFLICTED: _event(
        "challenge.conflicted",
        "warning",
        "The nonce belongs to another message, or the message to another customer: somebody errs, or tries.",
        *_WHOSE,
        "code",
    ),
    EventName.CLAIMED: _event("challenge.claimed", "info", "The nonce is taken for this message.", *_MOVE),
    EventName.RELEASED: _event(
        "challenge.released",
        "warning",
        "The key backend failed; the nonce waits for the same message.",
        *_MOVE,
        "key_uri",
    ),
    EventName.SIGNED: _event(
        "challenge.signed",
        "info",
        "The signature is durable.",
        *_MOVE,
        "key_uri",
        "duration_ms",
    ),
    EventName.TAKEN_OVER: _event(
        "challenge.taken_over",
        "info",
        "A challenge that another replica, or an earlier attempt, left unsettled is gone on with.",
        *_MOVE,
        "attempt",
    ),
    EventName.DELIVERED: _event(
        "challenge.delivered",
        "info",
        "The card API was given the signature; the code is the verdict on its answer.",
        *_MOVE,
        "attempt",
        "status",
        "duration_ms",
        "idempotency_key",
    ),
    EventName.DEFERRED: _event(
        "challenge.deferred",
        "warning",
        "The delivery has to be tried again, after duration_ms.",
        *_MOVE,
        "attempt",
        "duration_ms",
    ),
    EventName.SETTLED: _event("challenge.settled", "info", "The challenge is in a final state.", *_MOVE, "attempt"),
    EventName.LEASE_LOST: _event(
        "challenge.lease_lost",
        "warning",
        "Another replica took the challenge over while this one was working on it.",
        *_MOVE,
        "attempt",
    ),
}
"""The moves of challenges, as the use cases report them."""

HTTP_REQUEST: Final = _event(
    "http.request",
    "info",
    "A request was answered, or cut off (no status): the one line of each.",
    *_MOVE,
    "method",
    "route",
    "status",
    "bytes_in",
    "duration_ms",
)
HTTP_PROBE: Final = _event(
    "http.probe",
    "debug",
    "A probe was answered with 200; one that was not is an http.request.",
    "method",
    "route",
    "status",
    "duration_ms",
)
HTTP_UNEXPECTED_ERROR: Final = _event(
    "http.unexpected_error",
    "error",
    "A request met an error that nobody expected, and was answered 500: a defect.",
    *_FAILURE,
)

RECOVERY_UNEXPECTED_ERROR: Final = _event(
    "recovery.unexpected_error",
    "error",
    "Recovery met an error that nobody expected; it goes on with the other challenges: a defect.",
    *_FAILURE,
)

SERVICE_STARTED: Final = _event("service.started", "info", "The process begins.", "version", "python", "host", "port")
SERVICE_READY: Final = _event("service.ready", "info", "Requests are accepted.", "host", "port", "duration_ms")
SERVICE_STOPPING: Final = _event("service.stopping", "info", "The end was asked for; work goes on.", "reason")
SERVICE_STOPPED: Final = _event(
    "service.stopped",
    "info",
    "The process ends; so many pieces of work were left to recovery.",
    "left",
    "duration_ms",
)
SERVICE_HARDENED: Final = _event(
    "service.hardened",
    "info",
    "What the platform lets a process do against others that would read its memory has been done.",
    "held",
)
SERVICE_EXPOSED: Final = _event(
    "service.exposed",
    "warning",
    "A measure against reading the process's memory cannot be taken on this platform.",
    "measure",
    "reason",
)
SERVICE_FAILED: Final = _event("service.failed", "error", "The service could not start, or go on.", "reason", *_FAILURE)
KEYS_LOADING: Final = _event("keys.loading", "info", "Keys are being opened.", "loaded", "expected")
KEYS_LOADED: Final = _event(
    "keys.loaded",
    "info",
    "The key ring is as full as it gets.",
    "loaded",
    "missing",
    "failed",
    "duration_ms",
)
KEY_FAILED: Final = _event("keys.failed", "error", "One key could not be opened.", "key_uri", "reason")
KEYS_RELOADED: Final = _event(
    "keys.reloaded",
    "info",
    "The backends were looked at again, because somebody asked, a signal came, or files have changed; so many owners.",
    "reload_id",
    "cause",
    "added",
    "removed",
    "unchanged",
    "failed",
    "duration_ms",
)
KEYS_RELOAD_FAILED: Final = _event(
    "keys.reload_failed",
    "error",
    "A reload met an error that nobody expected; the keys are what they were: a defect.",
    "reload_id",
    "cause",
    *_FAILURE,
)
KEY_BACKEND_DOWN: Final = _event(
    "keys.backend_down",
    "error",
    "A backend that was loaded has stopped working; it is tried again, and readiness is false meanwhile.",
    "key_uri",
    "reason",
)
KEY_BACKEND_UP: Final = _event("keys.backend_up", "info", "A backend that was down works again.", "key_uri")
CARD_API_BREAKER_OPENED: Final = _event(
    "card_api.breaker_opened",
    "warning",
    "The card API failed again and again and is not asked for duration_ms; opening is the number of times in a row.",
    "opening",
    "duration_ms",
)
CARD_API_BREAKER_CLOSED: Final = _event(
    "card_api.breaker_closed",
    "info",
    "The card API works again, duration_ms after it was first left alone.",
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
    "The card API's clock is so far ahead of ours (behind it, if negative), which is more than is tolerated.",
    "skew_seconds",
)
CLOCK_AGREED: Final = _event("clock.agreed", "info", "The card API's clock and ours agree again.", "skew_seconds")
STORE_WARNING: Final = _event(
    "store.warning", "warning", "The store works, and is not set up as it should be.", "reason"
)
JUDGE_PASSED: Final = _event("judge.passed", "info", "siwe agrees with the parser on the pinned shapes.", "duration_ms")
JUDGE_FAILED: Final = _event("judge.failed", "error", "siwe and the parser disagree, or it did not run.", "reason")
LIBRARY_MESSAGE: Final = _event(
    "library.message",
    "warning",
    "A library logged something, at this level or a higher one.",
    "logger",
    "message",
    *_FAILURE,
)

CATALOGUE: Final[Mapping[str, Event]] = {
    event.name: event
    for event in (
        *CHALLENGE_EVENTS.values(),
        HTTP_REQUEST,
        HTTP_PROBE,
        HTTP_UNEXPECTED_ERROR,
        RECOVERY_UNEXPECTED_ERROR,
        SERVICE_STARTED,
        SERVICE_READY,
        SERVICE_STOPPING,
        SERVICE_STOPPED,
        SERVICE_HARDENED,
        SERVICE_EXPOSED,
        SERVICE_FAILED,
        KEYS_LOADING,
        KEYS_LOADED,
        KEY_FAILED,
        KEYS_RELOADED,
        KEYS_RELOAD_FAILED,
        KEY_BACKEND_DOWN,
        KEY_BACKEND_UP,
        CARD_API_BREAKER_OPENED,
        CARD_API_BREAKER_CLOSED,
        REQUEST_KEY_DOWN,
        REQUEST_KEY_UP,
        CLOCK_SKEWED,
        CLOCK_AGREED,
        STORE_WARNING,
        JUDGE_PASSED,
        JUDGE_FAILED,
        LIBRARY_MESSAGE,
    )
}
"""Every event by its name."""


def irregularities(line: Mapping[str, object]) -> tuple[str, ...]:
    """Say what of a written line the catalogue does not know; tests of whole runs ask this of every line."""
    event = CATALOGUE.get(str(line.get("event")))
    if event is None:
        return (f"unregistered event {line.get('event')!r}",)
    found = [f"unregistered field {name!r}" for name in sorted(line.keys() - event.fields - COMMON)]
    if line.get("level") != event.level and event is not LIBRARY_MESSAGE:
        found.append(f"level {line.get('level')!r}")
    return tuple(f"{event.name}: {what}" for what in found)
