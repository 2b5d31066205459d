from __future__ import annotations

import pytest

from signer.application.ports import AuditEvent, EventName
from signer.observability.events import CATALOGUE, CHALLENGE_EVENTS, COMMON, irregularities
from signer.observability.redaction import is_telling


@pytest.mark.parametrize("name", EventName)
def test_every_move_of_a_challenge_is_in_the_catalogue(name: EventName) -> None:
    """Under its own name, with fields that an audit event has."""
    event = CHALLENGE_EVENTS[name]
    assert CATALOGUE[name.value] is event
    assert event.fields < {field for field in AuditEvent.__slots__ if field != "name"}
    assert event.personal == {"customer_id", "owner"}


def test_an_event_has_a_meaning_and_no_field_for_a_secret() -> None:
    """A field whose name the redaction masks has no place in the catalogue."""
    for name, event in CATALOGUE.items():
        assert event.name.count(".") == 1, name
        assert event.meaning.endswith((".", "each.")), name
        assert not {field for field in event.fields | COMMON if is_telling(field)}, name
        assert not event.fields & COMMON, name


def test_names_are_unique() -> None:
    """No event hides another."""
    assert len(CATALOGUE) == len({id(event) for event in CATALOGUE.values()})
    assert all(name == event.name for name, event in CATALOGUE.items())


def test_irregular_lines_are_told() -> None:
    """An unknown event, an unknown field and another level than the catalogue's are found."""
    good = {"timestamp": "t", "level": "info", "event": "service.ready", "port": 1, "request_id": "r"}
    assert irregularities(good) == ()
    assert irregularities(good | {"event": "service.raedy"}) == ("unregistered event 'service.raedy'",)
    assert irregularities(good | {"ports": 2}) == ("service.ready: unregistered field 'ports'",)
    assert irregularities(good | {"level": "error"}) == ("service.ready: level 'error'",)
    assert irregularities({}) == ("unregistered event None",)
