"""Compares log lines with the catalogue of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from signer.observability.challenge_events import CHALLENGE_EVENTS
from signer.observability.event import CATALOGUE, COMMON
from signer.observability.events import SERVICE_READY
from signer.observability.http_events import HTTP_REQUEST

assert {SERVICE_READY.name, HTTP_REQUEST.name, *CHALLENGE_EVENTS} <= set(CATALOGUE), "all modules have to be imported"

OUTAGES: Final = frozenset({"store.down", "card_api.down", "card_api.request_key_down", "keys.backend_down"})
"""The errors that a fault of another part causes."""


def irregularities(line: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a log line has that the catalogue does not allow."""
    event = CATALOGUE.get(str(line.get("event")))
    if event is None:
        return (f"unregistered event {line.get('event')!r}",)
    found = [f"unregistered field {name!r}" for name in sorted(line.keys() - event.fields - COMMON)]
    if line.get("level") not in {event.level, event.raised_level}:
        found.append(f"level {line.get('level')!r}")
    return tuple(f"{event.name}: {what}" for what in found)
