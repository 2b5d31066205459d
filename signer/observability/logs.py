"""Write events as log lines. Libraries' log messages become events, too.

* ``write_event`` is the only way to the log. It renders a line once, without a logging library; structlog only draws
  the format ``console``, for development.
* A line begins with time (RFC 3339, UTC), level and name of the event; ``formats`` has their keys.
* ``error`` is shown by type and frames only: its message may hold a secret. A caller that writes a message as
  ``reason`` knows that it holds none.
* ``log_writer`` writes the lines to standard output. Logging never waits and never raises.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from signer.application.origin import ORIGIN
from signer.observability.event import OBSERVERS, Event
from signer.observability.events import LIBRARY_MESSAGE, LOG_LINES_LOST
from signer.observability.formats import FORMATS, Format, console, error_fields, members, plain_members, render_json
from signer.observability.log_writer import ROOM_FOR_OTHERS, LogWriter
from signer.observability.redaction import is_clean, redact
from signer.observability.settings import LoggingSettings, LogLevel

_RANKS: Final[Mapping[LogLevel, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}


@dataclass(slots=True)
class _Log:
    """Where lines go, and which: set once for the process."""

    queue: Callable[[bytes, float], None] = lambda _line, _longest: None
    render: Format = render_json
    lowest: int = len(_RANKS)
    worker: int | None = None


_log: Final = _Log()


@contextmanager
def open_log(settings: LoggingSettings, *, worker: int | None = None, lock: int | None = None) -> Iterator[LogWriter]:
    """Log to standard output while the context is open, and write the last lines at its end.

    Args:
        settings: the level and the format.
        worker: added to each line, if several workers write to standard output.
        lock: that of ``LogWriter``.
    """
    # If standard output is closed, its number may go to any file: a descriptor that cannot be written takes its place.
    descriptor = os.open(os.devnull, os.O_RDONLY) if sys.stdout is None else sys.stdout.fileno()
    writer = LogWriter(
        descriptor, lambda count: write_event(LOG_LINES_LOST, {"count": count}, longest_queue=math.inf), lock
    )
    _log.worker = worker
    configure_logging(settings, writer.queue, colours=os.isatty(descriptor))
    try:
        yield writer
    finally:
        writer.close()


def configure_logging(
    settings: LoggingSettings, queue: Callable[[bytes, float], None], *, colours: bool = False
) -> None:
    """Set up logging for the process. Before, no event is written.

    Args:
        settings: the level of the service's own events (libraries: always ``warning``), and the format.
        queue: takes each line and the longest queue that it may make, as ``LogWriter.queue`` does.
        colours: of the format ``console``.
    """
    _log.queue = queue
    _log.render = FORMATS.get(settings.format) or console(colours=colours)
    _log.lowest = _RANKS[settings.level]
    _route_libraries()


def write_event(
    event: Event,
    fields: dict[str, Any],
    *,
    error: BaseException | None = None,
    use_raised_level: bool = False,
    longest_queue: float = ROOM_FOR_OTHERS,
) -> None:
    """Write an event of the catalogue. Every event goes through this function.

    Args:
        event: says the name and the level.
        fields: those that are ``None`` are left out. The dict is changed: what identifies the request is added to it.
        error: shown by type and frames only.
        use_raised_level: in place of the event's level.
        longest_queue: bytes of the log's queue, with this line, above which the line is dropped.
    """
    for observe in OBSERVERS:
        observe(event.name, fields)
    level = event.raised_level if use_raised_level else event.level
    if _RANKS[level] < _log.lowest:
        return
    origin = ORIGIN.get()
    if origin is not None:
        fields.setdefault("request_id", origin.request_id)
        fields.setdefault("caller", origin.caller)
        if origin.trace is not None:
            fields.setdefault("trace_id", origin.trace.id)
    if _log.worker is not None:
        fields.setdefault("worker", _log.worker)
    duration = fields.get("duration_ms")
    if isinstance(duration, float):
        fields["duration_ms"] = round(duration, 3)
    encoded = plain_members(fields)
    if error is not None or encoded is None or not is_clean(fields, encoded):
        fields = redact({name: value for name, value in fields.items() if value is not None})
        if error is not None:  # its types and frames are no secrets, and may look like one
            fields |= error_fields(error)
        encoded = members(fields)
    _log.queue(_log.render(_now(), level, event.name, fields, encoded), longest_queue)


def _now() -> str:
    """Return the time in RFC 3339, in UTC, to the microsecond."""
    second, rest = divmod(time.time_ns(), 1_000_000_000)  # noqa: TID251 - no rule depends on a line's time
    return f"{_second_text(second)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=1)
def _second_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class LibraryHandler(logging.Handler):
    """Writes what libraries log through the standard library as ``library.message``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the first line of a record's message: asyncio and others put values into the next lines."""
        try:
            message = record.getMessage().partition("\n")[0]
        except Exception:  # noqa: BLE001 - a library's arguments do not fit its message
            message = "a message that could not be formatted"
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        fields = {"logger": record.name, "message": message}
        write_event(LIBRARY_MESSAGE, fields, error=error, use_raised_level=record.levelno >= logging.ERROR)


def _route_libraries() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(LibraryHandler())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
