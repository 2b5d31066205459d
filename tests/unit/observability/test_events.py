from __future__ import annotations

import pytest

from signer.application.ports import AuditFields, EventName
from signer.observability import events, http_events
from signer.observability.challenge_events import CHALLENGE_EVENTS
from signer.observability.event import CATALOGUE, COMMON, Event
from signer.observability.event import event as add_event
from signer.observability.fields import FIELDS
from signer.observability.redaction import is_sensitive_name
from tests.support.irregularities import irregularities


@pytest.mark.parametrize("name", EventName)
def test_every_audit_event_is_in_the_catalogue(name: EventName) -> None:
    """It has the same name, and only fields of ``AuditFields``."""
    event = CHALLENGE_EVENTS[name]
    assert CATALOGUE[name.value] is event
    assert event.fields < AuditFields.__annotations__.keys()
    assert event.fields >= {"customer_id", "owner"}


def test_event_has_a_meaning_and_no_field_for_a_secret() -> None:
    """Redaction would mask no field of the catalogue."""
    for name, event in CATALOGUE.items():
        assert event.name.count(".") == 1, name
        assert event.meaning.endswith("."), name
        assert not {field for field in event.fields | COMMON if is_sensitive_name(field)}, name
        assert not event.fields & COMMON, name


def test_every_field_is_in_the_catalogue_of_fields() -> None:
    """A field without an entry is on no page, and its lines take twice the time."""
    assert {*FIELDS} == COMMON.union(*(event.fields for event in CATALOGUE.values()))
    assert all(field.meaning.endswith(".") for field in FIELDS.values())


def test_event_of_level_warning_or_above_says_what_to_do() -> None:
    """So does every event with an alert."""
    for event in CATALOGUE.values():
        if {event.level, event.raised_level} & {"warning", "error"} or event.alert != "none":
            assert event.action.endswith("."), event.name
        assert event.alert in {"page", "ticket", "none"}, event.name


def test_event_names_are_unique() -> None:
    """No event replaces another in the catalogue, and each is a constant of a module."""
    with pytest.raises(ValueError, match=r"service\.started"):
        add_event("service.started", "info", "Another one.")
    constants = [*vars(events).values(), *vars(http_events).values()]
    defined = [each for each in constants if isinstance(each, Event)] + [*CHALLENGE_EVENTS.values()]
    assert {each.name: each for each in defined} == CATALOGUE


def test_irregularities_of_a_line_are_found() -> None:
    """They are an unknown event, an unknown field and a wrong level."""
    good = {"timestamp": "t", "level": "info", "event": "service.ready", "port": 1, "request_id": "r"}
    assert irregularities(good) == ()
    assert irregularities(good | {"event": "service.raedy"}) == ("unregistered event 'service.raedy'",)
    assert irregularities(good | {"ports": 2}) == ("service.ready: unregistered field 'ports'",)
    assert irregularities(good | {"level": "error"}) == ("service.ready: level 'error'",)
    settled = {"timestamp": "t", "event": "challenge.settled"}
    assert irregularities(settled | {"level": "warning"}) == irregularities(settled | {"level": "info"}) == ()
    assert irregularities(settled | {"level": "error"}) == ("challenge.settled: level 'error'",)
    assert irregularities(settled) == ("challenge.settled: level None",)
    assert irregularities({}) == ("unregistered event None",)
