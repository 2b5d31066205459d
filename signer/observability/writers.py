"""Where the ports of the house end in log lines: challenges' moves, exchanges, and the service's own events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import structlog

from signer.application.ports import AuditEvent, KeyReloadReport
from signer.application.reload_keys import KeyReload
from signer.observability.events import (
    CARD_API_BREAKER_CLOSED,
    CARD_API_BREAKER_OPENED,
    CHALLENGE_EVENTS,
    CLOCK_AGREED,
    CLOCK_SKEWED,
    HTTP_PROBE,
    HTTP_REQUEST,
    HTTP_UNEXPECTED_ERROR,
    KEY_FAILED,
    KEYS_RELOAD_FAILED,
    KEYS_RELOADED,
    Event,
)
from signer.web.request_summary import Exchange

_PROBES: Final = frozenset({"/healthz", "/readyz"})
_OK: Final = 200


def emit(event: Event, *, error: BaseException | None = None, **fields: Any) -> None:  # noqa: ANN401 - JSON values
    """Write one of the catalogue's events.

    Args:
        event: which one.
        error: shown by its type and frames only.
        fields: those that the catalogue lists for it; what is ``None`` is left out.
    """
    if error is not None:
        fields["exc_info"] = error
    _write(structlog.get_logger(), event, fields)


class StructlogAudit:
    """The port ``AuditLog``. Make it after ``configure_logging``: it binds its logger once."""

    def __init__(self) -> None:
        self._log: Final = structlog.get_logger().bind()

    def write(self, event: AuditEvent) -> None:
        """Write one move of a challenge."""
        _write(
            self._log,
            CHALLENGE_EVENTS[event.name],
            {
                "challenge_id": event.challenge_id,
                "customer_id": event.customer_id,
                "owner": event.owner,
                "state": event.state,
                "code": event.code,
                "key_uri": event.key_uri,
                "attempt": event.attempt,
                "status": event.status,
                "duration_ms": event.duration_ms,
                "idempotency_key": event.idempotency_key,
            },
        )


class CardApiLog:
    """Writes what the card API's circuit breaker (``BreakerListener``) and clock (``ClockListener``) report."""

    def breaker_opened(self, *, opening: int, cool_down: timedelta) -> None:
        """Write that the card API is left alone."""
        emit(CARD_API_BREAKER_OPENED, opening=opening, duration_ms=cool_down.total_seconds() * 1000)

    def breaker_closed(self, *, openings: int, after: timedelta) -> None:
        """Write that it works again."""
        emit(CARD_API_BREAKER_CLOSED, openings=openings, duration_ms=after.total_seconds() * 1000)

    def clock_skewed(self, skew: timedelta) -> None:
        """Write that its clock and ours are too far apart."""
        emit(CLOCK_SKEWED, skew_seconds=round(skew.total_seconds(), 1))

    def clock_agreed(self, skew: timedelta) -> None:
        """Write that they agree again."""
        emit(CLOCK_AGREED, skew_seconds=round(skew.total_seconds(), 1))


class StructlogReloadLog:
    """The port ``ReloadLog``."""

    def reloaded(self, reload: KeyReload, report: KeyReloadReport, duration_ms: float) -> None:
        """Write how many owners there are of each kind, and each key that could not be loaded."""
        for uri, reason in report.failed.items():
            emit(KEY_FAILED, key_uri=uri, reason=reason)
        emit(
            KEYS_RELOADED,
            reload_id=reload.id,
            cause=reload.cause,
            added=len(report.added),
            removed=len(report.removed),
            unchanged=len(report.unchanged),
            failed=len(report.failed),
            duration_ms=duration_ms,
        )

    def failed(self, reload: KeyReload, error: Exception) -> None:
        """Write the type of the error and where it was raised."""
        emit(KEYS_RELOAD_FAILED, error=error, reload_id=reload.id, cause=reload.cause)


class StructlogRequestLog:
    """The port ``RequestLog`` of the web. Make it after ``configure_logging``."""

    def __init__(self) -> None:
        self._log: Final = structlog.get_logger().bind()

    def answered(self, exchange: Exchange) -> None:
        """Write the canonical line; a probe that went well is for debugging only."""
        probe = exchange.route in _PROBES and exchange.status == _OK
        _write(
            self._log,
            HTTP_PROBE if probe else HTTP_REQUEST,
            {
                "request_id": exchange.request_id,
                "caller": exchange.caller,
                "method": exchange.method,
                "route": exchange.route,
                "status": exchange.status,
                "code": exchange.code,
                "state": exchange.state,
                "challenge_id": exchange.challenge_id,
                "customer_id": exchange.customer_id,
                "owner": exchange.owner,
                "bytes_in": exchange.bytes_in,
                "duration_ms": exchange.duration_ms,
            },
        )

    def failed(self, error: Exception) -> None:
        """Write the type of an unexpected error and where it was raised."""
        _write(self._log, HTTP_UNEXPECTED_ERROR, {"exc_info": error})


def _write(log: Any, event: Event, fields: dict[str, Any]) -> None:  # noqa: ANN401 - structlog's loggers have no one type
    present = {name: value for name, value in fields.items() if value is not None}
    duration = present.get("duration_ms")
    if duration is not None:
        present["duration_ms"] = round(duration, 3)
    getattr(log, event.level)(event.name, **present)
