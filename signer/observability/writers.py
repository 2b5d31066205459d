"""Write events: the implementations of the ports that log, and ``emit`` for the service's own events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields as fields_of
from datetime import timedelta
from http import HTTPStatus
from operator import attrgetter
from typing import Any, Final

from signer.adapters.card_api.results import Failure
from signer.application.ports import AuditEvent, EventName, KeyFailure, KeyReloadReport
from signer.application.reload_keys import KeyReload
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability import events, http_events
from signer.observability.challenge_events import CHALLENGE_EVENTS, has_raised_level
from signer.observability.event import Event
from signer.observability.log_writer import ROOM, ROOM_FOR_OTHERS
from signer.observability.logs import write_event
from signer.web.request_summary import RequestSummary

_REQUEST_FIELDS: Final = tuple(field.name for field in fields_of(RequestSummary))
_REQUEST_VALUES: Final = attrgetter(*_REQUEST_FIELDS)
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_BUSY: Final = frozenset({ErrorCode.OVERLOADED, ErrorCode.CHALLENGE_IN_PROGRESS, ErrorCode.SHUTTING_DOWN})
_RETRY_AFTER_SECONDS: Final = 5.0


def emit(event: Event, *, error: BaseException | None = None, **fields: Any) -> None:  # noqa: ANN401 - JSON values
    """Write an event.

    Args:
        event: an event of the catalogue.
        error: shown by type and frames only.
        fields: the event's fields; those that are ``None`` are left out.
    """
    write_event(event, fields, error=error)


class AuditLogLines:
    """The port ``AuditLog``, as log lines."""

    def __init__(self, log_problem: Callable[[], str | None] = lambda: None, *, required: bool = True) -> None:
        """Use ``LogWriter.problem``; if it returns one, ``check`` raises only if the log is ``required``."""
        self._log_problem: Final = log_problem
        self._is_required: Final = required

    def write(self, event: AuditEvent) -> None:
        """Write what happened to a challenge or a customer."""
        # After a refusal nothing was signed: its line takes no room from those of signatures.
        longest_queue = ROOM_FOR_OTHERS if event.name is EventName.REFUSED else ROOM
        write_event(
            CHALLENGE_EVENTS[event.name],
            {**event.fields},
            use_raised_level=has_raised_level(event),
            longest_queue=longest_queue,
        )

    def check(self) -> None:
        """See ``AuditLog.check``."""
        problem = self._log_problem() if self._is_required else None
        if problem is not None:
            detail = f"{problem} Nothing is signed until the log can be written again; retry."
            raise Unavailable(ErrorCode.AUDIT_UNAVAILABLE, detail, retry_after=_RETRY_AFTER_SECONDS)

    async def check_readiness(self) -> str | None:
        """Raise as ``check`` does; if the log is not required, return its problem."""
        self.check()
        return self._log_problem()


class RequestLogLines:
    """The port ``RequestLog``, as log lines."""

    def request_finished(self, summary: RequestSummary) -> None:
        """Write the canonical line of a request; for a probe that got 200, a debug line; for a failure, a warning."""
        is_probe = summary.route in _PROBES and summary.status == HTTPStatus.OK
        event = http_events.HTTP_PROBE if is_probe else http_events.HTTP_REQUEST
        is_failure = (summary.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR and summary.code not in _BUSY
        is_warning = is_failure and summary.caller is not None  # strangers cause no warnings
        fields = dict(zip(_REQUEST_FIELDS, _REQUEST_VALUES(summary), strict=True))
        write_event(event, fields, use_raised_level=is_warning)

    def unexpected_error(self, error: Exception) -> None:
        """Write the type and the frames of an error."""
        emit(http_events.HTTP_UNEXPECTED_ERROR, error=error)

    def connections_closed(self, count: int) -> None:
        """Write the number."""
        emit(http_events.HTTP_CONNECTIONS_CLOSED, count=count)


class CardApiLog:
    """Writes changes of the circuit breaker (``BreakerListener``) and of the card API's clock (``ClockListener``)."""

    def __init__(self) -> None:
        self._skewed_at = 0.0

    def breaker_opened(self, *, opening: int, cool_down: timedelta, failure: Failure) -> None:
        """Write that the circuit breaker opened."""
        duration_ms, reason = cool_down.total_seconds() * 1000, failure.detail
        opened = events.CARD_API_BREAKER_OPENED
        emit(opened, opening=opening, duration_ms=duration_ms, cause=failure.cause, reason=reason)

    def breaker_closed(self, *, openings: int, after: timedelta) -> None:
        """Write that the circuit breaker closed."""
        emit(events.CARD_API_BREAKER_CLOSED, openings=openings, duration_ms=after.total_seconds() * 1000)

    def clock_skewed(self, skew: timedelta) -> None:
        """Write that the clocks differ too much."""
        self._skewed_at = time.monotonic()
        emit(events.CLOCK_SKEWED, skew_seconds=round(skew.total_seconds(), 1))

    def clock_agreed(self, skew: timedelta) -> None:
        """Write that the clocks agree again."""
        duration_ms = (time.monotonic() - self._skewed_at) * 1000
        emit(events.CLOCK_AGREED, skew_seconds=round(skew.total_seconds(), 1), duration_ms=duration_ms)


class DamageLogLines:
    """The protocol ``DamageLog``, as log lines."""

    def record_damaged(self, key: str) -> None:
        """Write that the data of a key is damaged."""
        emit(events.STORE_RECORD_DAMAGED, redis_key=key)

    def junk_removed(self, count: int) -> None:
        """Write how many members were removed from the indexes."""
        emit(events.STORE_JUNK_REMOVED, count=count)

    def indexes_failed(self, keys: Sequence[str], reason: str) -> None:
        """Write which indexes cannot be read."""
        emit(events.STORE_INDEXES_FAILED, redis_keys=list(keys), reason=reason)


class ReloadLogLines:
    """The port ``ReloadLog``, as log lines."""

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """Write each key that could not be loaded, and the numbers of owners."""
        for uri, reason in report.failed.items():
            emit(events.KEY_FAILED, key_uri=uri, cause=KeyFailure.cause_of(reason), reason=reason)
        emit(
            events.KEYS_RELOADED,
            reload_id=reload.id,
            cause=reload.cause,
            added=len(report.added),
            removed=len(report.removed),
            unchanged=len(report.unchanged),
            kept=len(report.kept),
            failed=len(report.failed),
            duration_ms=duration_ms,
        )

    def failed(self, reload: KeyReload, error: Exception) -> None:
        """Write the type and the frames of an error."""
        emit(events.KEYS_RELOAD_FAILED, error=error, reload_id=reload.id, cause=reload.cause)
