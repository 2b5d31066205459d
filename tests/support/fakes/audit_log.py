"""The port ``AuditLog`` in memory."""

from __future__ import annotations

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, EventName


class FakeAuditLog:
    """Records every event and its origin.

    Attributes:
        events: in the order of the calls.
        origins: the origin of each event, in the same order.
    """

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.origins: list[Origin | None] = []

    def write(self, event: AuditEvent) -> None:
        """Record one event."""
        self.events.append(event)
        self.origins.append(ORIGIN.get())

    @property
    def names(self) -> list[EventName]:
        """The names of the events, in order."""
        return [event.name for event in self.events]

    def events_named(self, name: EventName) -> list[AuditEvent]:
        """Return the events with this name."""
        return [event for event in self.events if event.name is name]
