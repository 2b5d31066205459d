"""How a line is written: structlog into JSON, one line an event, flushed at once; libraries' own logs the same way.

* A line begins with ``timestamp`` (RFC 3339, UTC), ``level`` and ``event``.
* An exception is shown by its type and frames: its message may hold anything, so it is never written.
* Writing never raises: a service whose standard output is gone still signs. (Its deliveries are in the store.)
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal

import structlog
from structlog.typing import EventDict, Processor

from signer.application.origin import ORIGIN
from signer.observability.events import LIBRARY_MESSAGE, Level
from signer.observability.redaction import redact

LogForm = Literal["json", "console"]

_NUMBER_FOR_LEVEL: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_MOST_FRAMES: Final = 30


def configure_logging(level: Level = "info", form: LogForm = "json", stream: BinaryIO | None = None) -> None:
    """Set up logging for the whole process. Loggers that were bound before keep what they had.

    Args:
        level: the least that the service's own events need; libraries need a warning.
        form: JSON lines, or something for a person at a terminal.
        stream: where lines go; standard output by default.
    """
    out = sys.stdout.buffer if stream is None else stream
    render: Processor = render_json if form == "json" else _console(colours=out.isatty())
    structlog.configure(
        processors=[
            add_origin,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            show_error,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBER_FOR_LEVEL[level]),
        logger_factory=LineWriter(out),
        cache_logger_on_first_use=False,
    )
    _route_libraries()


class LineWriter:
    """Writes lines to a binary stream, each whole and at once; it is the logger, and the factory of itself."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Final = stream  # held: structlog's own loggers keep it weakly
        self._lock: Final = threading.Lock()

    def __call__(self, *_: object) -> LineWriter:
        """Be the factory that structlog asks for."""
        return self

    def msg(self, line: bytes) -> None:
        """Write one line; where that cannot be done, the line is lost and nothing else."""
        try:
            with self._lock:
                self._stream.write(line)
                self._stream.flush()
        except (OSError, ValueError):  # the pipe is broken, the disk full, the stream closed
            return

    log = debug = info = warning = warn = error = critical = exception = msg


def add_origin(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the request, and its caller, on whose behalf the line is written."""
    origin = ORIGIN.get()
    if origin is not None:
        event.setdefault("request_id", origin.request_id)
        if origin.caller is not None:
            event.setdefault("caller", origin.caller)
    return event


def show_error(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put an exception's type, its causes' types and its frames in the place of ``exc_info``."""
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
    """Name the frames, outermost first, as ``module:function:line``: no path, no source, no values."""
    frames: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        frames.append(f"{module}:{code.co_name}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return frames[-_MOST_FRAMES:]


def _unencodable(value: object) -> str:
    return f"<{type(value).__name__}>"


_IN_FRONT: Final = ("timestamp", "level", "event")
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), default=_unencodable).encode


def render_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    """Render one line of JSON, ASCII only, with a newline."""
    line = {name: event.pop(name, None) for name in _IN_FRONT}
    line.update(event)
    return _ENCODE(line).encode("ascii") + b"\n"


def _console(*, colours: bool) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(colors=colours)

    def render(logger: Any, method: str, event: EventDict) -> bytes:  # noqa: ANN401 - structlog's own signature
        return (str(renderer(logger, method, event)) + "\n").encode("utf-8", "replace")

    return render


class LibraryHandler(logging.Handler):
    """Takes what libraries log through the standard library, and writes it as ``library.message``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record: the first line of its message, for asyncio and others put values into the next ones."""
        try:
            message = record.getMessage().partition("\n")[0]
        except Exception:  # noqa: BLE001 - arguments that do not fit the message are a library's mistake
            message = "a message that could not be put together"
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
