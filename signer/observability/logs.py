"""Set up logging: structlog makes one JSON line of each event. Libraries' log messages go the same way.

* A line begins with ``timestamp`` (RFC 3339, UTC), ``level`` and ``event``.
* An exception is shown by type and frames. Its message may hold a secret and is never written.
* ``log_writer`` writes the lines to standard output. Logging never waits and never raises.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor

from signer.application.origin import ORIGIN
from signer.observability.event import OBSERVERS
from signer.observability.events import LIBRARY_MESSAGE, LOG_LINES_LOST
from signer.observability.log_writer import LogWriter
from signer.observability.redaction import redact
from signer.observability.settings import LoggingSettings, LogLevel

_NUMBER_FOR_LEVEL: Final[dict[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_MAX_FRAMES: Final = 30


@contextmanager
def open_log(settings: LoggingSettings) -> Iterator[LogWriter]:
    """Log to standard output while the context is open, and write the last lines at its end."""
    # If standard output is closed, its number may go to any file: a descriptor that cannot be written takes its place.
    descriptor = os.open(os.devnull, os.O_RDONLY) if sys.stdout is None else sys.stdout.fileno()
    writer = LogWriter(descriptor, _report_lost)
    configure_logging(settings, writer.logger, colours=os.isatty(descriptor))
    try:
        yield writer
    finally:
        writer.close()


def _report_lost(count: int) -> None:
    for observe in OBSERVERS:
        observe(LOG_LINES_LOST.name, {"count": count})
    structlog.get_logger(math.inf).error(LOG_LINES_LOST.name, count=count)


def configure_logging(settings: LoggingSettings, new_logger: Callable[..., Any], *, colours: bool = False) -> None:
    """Set up logging for the process. Loggers that were bound before keep their configuration.

    Args:
        settings: the level of the service's own events (libraries: always ``warning``), and the format.
        new_logger: returns what writes the lines, as ``LogWriter.logger`` does.
        colours: of the format ``console``.
    """
    render: Processor = render_json if settings.format == "json" else _console(colours=colours)
    structlog.configure(
        processors=[
            add_origin,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            show_error,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBER_FOR_LEVEL[settings.level]),
        logger_factory=new_logger,
        cache_logger_on_first_use=False,
    )
    _route_libraries()


def add_origin(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the id, the caller and the trace of the request that caused the line."""
    origin = ORIGIN.get()
    if origin is not None:
        event.setdefault("request_id", origin.request_id)
        if origin.caller is not None:
            event.setdefault("caller", origin.caller)
        if origin.trace is not None:
            event.setdefault("trace_id", origin.trace.id)
    return event


def show_error(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace ``exc_info`` by the types of the exception and its causes, and by its frames."""
    given = event.pop("exc_info", None)
    if not given:
        return event
    error = given[1] if isinstance(given, tuple) else given if isinstance(given, BaseException) else sys.exc_info()[1]
    if error is not None:
        event["error"] = " from ".join(_types(error))
        event["frames"] = _frames(error.__traceback__)
    return event


def _types(error: BaseException) -> list[str]:
    types: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        types.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return types


def _frames(traceback: TracebackType | None) -> list[str]:
    """Return the frames as ``module:function:line``, outermost first: no paths, source or values."""
    frames: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        frames.append(f"{module}:{code.co_name}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return frames[-_MAX_FRAMES:]


def _unencodable(value: object) -> str:
    return f"<{type(value).__name__}>"


_FIRST_FIELDS: Final = ("timestamp", "level", "event")
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), default=_unencodable).encode


def render_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    """Return the event as one line of ASCII JSON."""
    line = {name: event.pop(name, None) for name in _FIRST_FIELDS}
    line.update(event)
    return _ENCODE(line).encode("ascii") + b"\n"


def _console(*, colours: bool) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(colors=colours)

    def render(logger: Any, method: str, event: EventDict) -> bytes:  # noqa: ANN401 - structlog's own signature
        return (str(renderer(logger, method, event)) + "\n").encode("utf-8", "replace")

    return render


class LibraryHandler(logging.Handler):
    """Writes what libraries log through the standard library as ``library.message``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the first line of a record's message: asyncio and others put values into the next lines."""
        try:
            message = record.getMessage().partition("\n")[0]
        except Exception:  # noqa: BLE001 - a library's arguments do not fit its message
            message = "a message that could not be formatted"
        level = "error" if record.levelno >= logging.ERROR else "warning"
        log = getattr(structlog.get_logger(), level)
        log(LIBRARY_MESSAGE.name, logger=record.name, message=message, exc_info=record.exc_info)


def _route_libraries() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(LibraryHandler())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
