"""Captures log lines: configures logging as the service does, writes to memory at once, and restores it afterwards."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from signer.observability import logs
from signer.observability.logs import LibraryHandler, configure_logging
from signer.observability.settings import LogFormat, LoggingSettings, LogLevel


class LogLines:
    """The log lines so far."""

    def __init__(self) -> None:
        self.stream = io.BytesIO()

    def queue(self, line: bytes, _room: float) -> None:
        """Keep one line, as ``LogWriter.queue`` does."""
        self.stream.write(line)

    @property
    def text(self) -> str:
        """All lines as text."""
        return self.stream.getvalue().decode()

    def all(self) -> list[dict[str, Any]]:
        """Return all lines as JSON objects."""
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, *events: str) -> list[dict[str, Any]]:
        """Return the lines of these events."""
        return [line for line in self.all() if line["event"] in events]

    def clear(self) -> None:
        """Remove all lines."""
        self.stream.seek(0)
        self.stream.truncate()


@contextmanager
def captured_logs(level: LogLevel = "debug", form: LogFormat = "json") -> Iterator[LogLines]:
    """Configure logging as the service does; restore everything at the end."""
    root = logging.getLogger()
    handlers, number = list(root.handlers), root.level
    lines, before = LogLines(), replace(logs._log)
    configure_logging(LoggingSettings(level=level, format=form), lines.queue)
    try:
        yield lines
    finally:
        for handler in [handler for handler in root.handlers if isinstance(handler, LibraryHandler)]:
            root.removeHandler(handler)
        assert root.handlers == handlers
        root.setLevel(number)
        logging.captureWarnings(capture=False)
        logs._log.queue, logs._log.render, logs._log.lowest = before.queue, before.render, before.lowest
