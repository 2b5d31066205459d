"""Writes outages: the implementation of ``OutageListener``."""

from __future__ import annotations

from datetime import timedelta

from signer.observability.event import Event
from signer.observability.writers import emit


class OutageLog:
    """Writes the two events of one part.

    Args:
        down: written when the part is down, and again while it is.
        up: written when it works again.
        where: which server it is, without credentials; precedes each reason.
        key_uri: of the key backend, or of one key in a KMS.
    """

    def __init__(self, down: Event, up: Event, *, where: str = "", key_uri: str | None = None) -> None:
        self._down = down
        self._up = up
        self._where = where
        self._key_uri = key_uri

    def down(self, cause: str, reason: str, lasted: timedelta | None) -> None:
        """See ``OutageListener.down``."""
        self._write(self._down, cause, reason, lasted)

    def up(self, cause: str, reason: str, lasted: timedelta) -> None:
        """See ``OutageListener.up``."""
        self._write(self._up, cause, reason, lasted)

    def _write(self, event: Event, cause: str, reason: str, lasted: timedelta | None) -> None:
        reason = f"{self._where}: {reason}" if self._where else reason
        duration_ms = None if lasted is None else lasted.total_seconds() * 1000
        emit(event, cause=cause, reason=reason, duration_ms=duration_ms, key_uri=self._key_uri)
