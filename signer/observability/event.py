"""What a log event is, and the catalogue that ``events``, ``http_events`` and ``challenge_events`` fill.

* Alerts and dashboards depend on the names: add events, never rename one.
* A field without a value is left out. Every line may also have the fields in ``COMMON``.
* ``fields`` says what each field means. No field of any event may hold a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from signer.observability.settings import LogLevel

COMMON: Final = frozenset({"timestamp", "level", "event", "request_id", "caller", "trace_id", "worker"})
"""Fields that every line may have: ``worker`` if there are several, the three before only if a request caused it."""

OBSERVERS: Final[list[Callable[[str, Mapping[str, Any]], None]]] = []
"""Called with the name and the fields of each event, also below ``logging.level``. They must not raise or wait."""


Alert = Literal["page", "ticket", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of log line.

    Attributes:
        name: the value of the field ``event``.
        level: of its lines.
        raised_level: of its lines in the cases that ``meaning`` names; the same if it names none.
        meaning: when it is written.
        fields: all that it may have in addition to ``COMMON``.
        action: what the person who reads it should do; empty if nothing.
        alert: whether that person is to be woken (``page``), told by the next working day (``ticket``), or neither.
    """

    name: str
    level: LogLevel
    raised_level: LogLevel
    meaning: str
    fields: frozenset[str]
    action: str
    alert: Alert


_events: Final[dict[str, Event]] = {}
CATALOGUE: Final[Mapping[str, Event]] = _events
"""Every event by its name."""


def event(
    name: str,
    level: LogLevel,
    meaning: str,
    *fields: str,
    raised_level: LogLevel | None = None,
    action: str = "",
    alert: Alert = "none",
) -> Event:
    """Add an event to the catalogue and return it; raise ``ValueError`` if there is one of this name."""
    if name in _events:
        raise ValueError(name)
    new = Event(
        name=name,
        level=level,
        raised_level=raised_level or level,
        meaning=meaning,
        fields=frozenset(fields),
        action=action,
        alert=alert,
    )
    _events[name] = new
    return new


CUSTOMER_FIELDS: Final = frozenset({"customer_id", "owner"})
RECORD_FIELDS: Final = CUSTOMER_FIELDS | {"challenge_id", "state", "code"}
FAILURE_FIELDS: Final = frozenset({"error", "frames"})
OUTAGE_FIELDS: Final = frozenset({"cause", "reason", "duration_ms"})
