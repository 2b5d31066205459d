"""The port ``AuditLog``, as a list."""

from __future__ import annotations

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, EventName


class FakeAuditLog:
    """Remembers every event, and on whose behalf it was written.

    Attributes:
        events: in the order in which they were written.
        origins: of each of them.
    """

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.origins: list[Origin | None] = []

    def write(self, event: AuditEvent) -> None:
        """Write one event down."""
        self.events.append(event)
        self.origins.append(ORIGIN.get())

    @property
    def names(self) -> list[EventName]:
        """What happened, in order."""
        return [event.name for event in self.events]

    def events_named(self, name: EventName) -> list[AuditEvent]:
        """Give the events of one name."""
        return [event for event in self.events if event.name is name]
