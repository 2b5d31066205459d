"""Write events: the implementations of the ports that log, and ``emit`` for the service's own events."""

from __future__ import annotations

from dataclasses import fields as fields_of
from datetime import timedelta
from typing import Any, Final

import structlog

from signer.application.ports import AuditEvent, KeyReloadReport
from signer.application.reload_keys import KeyReload
from signer.observability import events
from signer.observability.events import CHALLENGE_EVENTS, Event
from signer.web.request_summary import RequestSummary

_AUDIT_FIELDS: Final = tuple(field.name for field in fields_of(AuditEvent) if field.name != "name")
_REQUEST_FIELDS: Final = tuple(field.name for field in fields_of(RequestSummary))
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_OK: Final = 200


def emit(event: Event, *, error: BaseException | None = None, **fields: Any) -> None:  # noqa: ANN401 - JSON values
    """Write an event.

    Args:
        event: an event of the catalogue.
        error: shown by type and frames only.
        fields: the event's fields; those that are ``None`` are left out.
    """
    if error is not None:
        fields["exc_info"] = error
    _write(structlog.get_logger(), event, fields)


class StructlogAudit:
    """The port ``AuditLog``. Create it after ``configure_logging``: it binds its logger once."""

    def __init__(self) -> None:
        self._log: Final = structlog.get_logger().bind()

    def write(self, event: AuditEvent) -> None:
        """Write what happened to a challenge or a customer."""
        _write(self._log, CHALLENGE_EVENTS[event.name], {name: getattr(event, name) for name in _AUDIT_FIELDS})


class StructlogRequestLog:
    """The port ``RequestLog``. Create it after ``configure_logging``: it binds its logger once."""

    def __init__(self) -> None:
        self._log: Final = structlog.get_logger().bind()

    def request_finished(self, summary: RequestSummary) -> None:
        """Write the canonical line of a request; for a probe that got 200, a debug line."""
        is_probe = summary.route in _PROBES and summary.status == _OK
        event = events.HTTP_PROBE if is_probe else events.HTTP_REQUEST
        _write(self._log, event, {name: getattr(summary, name) for name in _REQUEST_FIELDS})

    def unexpected_error(self, error: Exception) -> None:
        """Write the type and the frames of an error."""
        _write(self._log, events.HTTP_UNEXPECTED_ERROR, {"exc_info": error})


class CardApiLog:
    """Writes changes of the circuit breaker (``BreakerListener``) and of the card API's clock (``ClockListener``)."""

    def breaker_opened(self, *, opening: int, cool_down: timedelta) -> None:
        """Write that the circuit breaker opened."""
        emit(events.CARD_API_BREAKER_OPENED, opening=opening, duration_ms=cool_down.total_seconds() * 1000)

    def breaker_closed(self, *, openings: int, after: timedelta) -> None:
        """Write that the circuit breaker closed."""
        emit(events.CARD_API_BREAKER_CLOSED, openings=openings, duration_ms=after.total_seconds() * 1000)

    def clock_skewed(self, skew: timedelta) -> None:
        """Write that the clocks differ too much."""
        emit(events.CLOCK_SKEWED, skew_seconds=round(skew.total_seconds(), 1))

    def clock_agreed(self, skew: timedelta) -> None:
        """Write that the clocks agree again."""
        emit(events.CLOCK_AGREED, skew_seconds=round(skew.total_seconds(), 1))


class StructlogReloadLog:
    """The port ``ReloadLog``."""

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """Write each key that could not be loaded, and the numbers of owners."""
        for uri, reason in report.failed.items():
            emit(events.KEY_FAILED, key_uri=uri, reason=reason)
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


def _write(log: Any, event: Event, fields: dict[str, Any]) -> None:  # noqa: ANN401 - structlog's loggers have no type
    present = {name: value for name, value in fields.items() if value is not None}
    if "duration_ms" in present:
        present["duration_ms"] = round(present["duration_ms"], 3)
    getattr(log, event.level)(event.name, **present)
