"""``docs/events.md``: the page of all events and fields of the log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from signer.observability import challenge_events, events, http_events
from signer.observability.event import CATALOGUE, COMMON, Event
from signer.observability.fields import FIELDS
from signer.observability.formats import ECS_NAMES, ECS_OWN, FORMATS, GCP_HTTP_NAMES, GCP_NAMES, members

assert all((challenge_events, events, http_events)), "they fill the catalogue"

HEAD = """\
# Events

This page is generated from `signer/observability` by `make docs`.

On call:

1. What is wrong: `kubectl logs -f --tail=-1 --since=1h --max-log-requests=20 \
-l app.kubernetes.io/name=challenge-signer | signer logs --level warning --explain`.
2. *alert* in [the first table](#events-to-act-on): *page* means now, *ticket* the next working day, *none* never.
3. `signer logs --request-id …` (or `--challenge-id`, `--owner`) shows all lines of one request, challenge or account.

## `signer logs`

It reads lines of the formats `json`, `ecs` and `gcp` from files or from standard input, and prints each as one line of
text. Lines of other programs, and of the format `console`, pass through unchanged. The filters are `--level warning`,
`--event 'store.*'`, `--request-id`, `--challenge-id`, `--owner` and `--since 15m`. `--explain` adds what to do.

## Events to act on

`info / warning` means: `info`, and `warning` in the cases that *when* names.

| event | level | alert | when | what to do | fields |
|---|---|---|---|---|---|
"""
OTHERS = """
## Other events

| event | level | when | fields |
|---|---|---|---|
"""
FIELD_HEAD = """
## Fields

Every line has `timestamp`, `level` and `event`, and if a request caused it, {common}. With several workers it
has `worker`. A field without a value is left out. No field holds a secret, a signature or the text of a challenge. What
looks like a secret is shown as `***`.

*customer*: the value belongs to one customer or account. You need this to decide how long logs are kept and who may
read them. *ecs* and *gcp*: the field's name in these formats.

| field | meaning | customer | ecs | gcp |
|---|---|---|---|---|
"""
FORMAT_HEAD = """
## Formats

`logging.format` is `json`, `ecs` (Elastic Common Schema), `gcp` (Google Cloud Logging), or `console` for development.
All but the last write one JSON object a line. In `ecs` and `gcp`, `message` is the event's name with its reason or
code, and frames look like Python's tracebacks, without messages and paths. In `ecs`, durations are in nanoseconds.
"""
EXAMPLE = {
    "request_id": "0123456789abcdef0123456789abcdef",
    "caller": "wallet",
    "method": "POST",
    "route": "/v1/customers/{customerId}/challenge/sign",
    "status": 200,
    "state": "verified",
    "challenge_id": "2d" + "ab" * 16,
    "customer_id": "04c5851c-4386-5bd9-9f89-08312f8aee3a",
    "owner": "eip155:324:0x43158f45b5EbD7b1179130130DF00393928C2691",
    "bytes_in": 90,
    "duration_ms": 15.123,
}


def events_page() -> str:
    """Return the page."""
    listed = [CATALOGUE[name] for name in sorted(CATALOGUE)]
    to_act_on = [event for event in listed if event.action]
    first = "".join(
        f"| `{event.name}` | {_level(event)} | {event.alert} | {event.meaning} | {_linked(event.action)} "
        f"| {_names(event.fields)} |\n"
        for event in to_act_on
    )
    others = "".join(
        f"| `{event.name}` | {_level(event)} | {event.meaning} | {_names(event.fields)} |\n"
        for event in listed
        if event not in to_act_on
    )
    common = _names(COMMON - {"timestamp", "level", "event", "worker"})
    fields = FIELD_HEAD.format(common=common) + "".join(_field_rows())
    return HEAD + first + OTHERS + others + fields + FORMAT_HEAD + "".join(_examples())


def _level(event: Event) -> str:
    return event.level if event.raised_level == event.level else f"{event.level} / {event.raised_level}"


def _names(fields: Iterable[str]) -> str:
    """Return the names in the order of the catalogue."""
    return ", ".join(f"`{name}`" for name in FIELDS if name in set(fields))


def _linked(action: str) -> str:
    return re.sub(r"docs/([\w/-]+\.md)", r"[\1](\1)", action)


def _field_rows() -> Iterator[str]:
    for name, field in FIELDS.items():
        gcp = GCP_NAMES.get(name, name)
        in_request = f"; of a request `httpRequest.{GCP_HTTP_NAMES[name]}`" if name in GCP_HTTP_NAMES else ""
        customer = "yes" if field.identifies_customer else ""
        ecs = ECS_NAMES.get(name, ECS_OWN + name)
        yield f"| `{name}` | {field.meaning} | {customer} | `{ecs}` | `{gcp}`{in_request} |\n"


def _examples() -> Iterator[str]:
    for name, render in FORMATS.items():
        line = render("2026-11-22T12:00:00.000000Z", "info", "http.request", EXAMPLE, members(EXAMPLE))
        yield f"\nThe same line as `{name}`:\n\n```json\n{line.decode()}```\n"
