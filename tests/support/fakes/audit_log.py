"""The port ``AuditLog`` in memory."""

from __future__ import annotations

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, EventName
from signer.domain.errors import ErrorCode, Unavailable


class FakeAuditLog:
    """Records every event and its origin.

    Attributes:
        events: in the order of the calls.
        origins: the origin of each event, in the same order.
        is_down: whether lines cannot be written.
    """

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.origins: list[Origin | None] = []
        self.is_down = False

    def write(self, event: AuditEvent) -> None:
        """Record one event."""
        self.events.append(event)
        self.origins.append(ORIGIN.get())

    def check(self) -> None:
        """Raise while the log is down."""
        if self.is_down:
            raise Unavailable(ErrorCode.AUDIT_UNAVAILABLE, "The log cannot be written.")

    @property
    def names(self) -> list[EventName]:
        """The names of the events, in order."""
        return [event.name for event in self.events]

    def events_named(self, name: EventName) -> list[AuditEvent]:
        """Return the events with this name."""
        return [event for event in self.events if event.name is name]
