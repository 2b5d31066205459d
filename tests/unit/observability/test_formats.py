"""Each format has the names that its readers expect, and ``read_line`` takes all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, AuditFields, EventName
from signer.observability import logs
from signer.observability.events import LIBRARY_MESSAGE, STORE_WARNING
from signer.observability.formats import FORMATS, read_line
from signer.observability.http_events import HTTP_REQUEST, HTTP_UNEXPECTED_ERROR
from signer.observability.logs import write_event
from signer.observability.settings import LogFormat
from signer.observability.writers import AuditLogLines
from tests.support.log_lines import captured_logs

TIME = "2026-11-22T12:00:00.000001Z"
OWNER = "eip155:324:0x43158f45b5EbD7b1179130130DF00393928C2691"
CUSTOMER = "04c5851c-4386-5bd9-9f89-08312f8aee3a"


def fail() -> None:
    """Raise an error within a function whose name is none."""
    get: Callable[[], object] = lambda: dict[str, int]()["absent"]  # noqa: E731
    get()


def write(name: str) -> None:
    """Write one of the lines below."""
    match name:
        case "challenge":
            fields: AuditFields = {
                "customer_id": CUSTOMER,
                "owner": OWNER,
                "state": "rejected",
                "code": "refused",
                "attempt": 2,
            }
            AuditLogLines().write(AuditEvent(EventName.SETTLED, fields))
        case "request":
            details = {"method": "POST", "route": "/v1/customers", "status": 503, "code": "overloaded", "bytes_in": 90}
            write_event(HTTP_REQUEST, {"request_id": "r-1", "caller": "wallet", **details, "duration_ms": 1.2345})
        case "error":
            with pytest.raises(KeyError) as caught:
                fail()
            write_event(HTTP_UNEXPECTED_ERROR, {}, error=caught.value)
        case "library":
            write_event(LIBRARY_MESSAGE, {"logger": "asyncio", "message": "slow"})
        case _:
            write_event(STORE_WARNING, {"reason": "AOF is off."})


def line_of(name: str, form: LogFormat) -> dict[str, Any]:
    """Return one of the lines below in a format."""
    with captured_logs(form=form) as log:
        write(name)
    return log.all()[0]


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines are written at one time, for no request."""
    monkeypatch.setattr(logs, "_now", lambda: TIME)


ECS = {"@timestamp": TIME, "ecs.version": "8.11.0", "service.name": "challenge-signer"}
STACK = f"""Traceback (most recent call last):
  File "{__name__}", line 0, in write
  File "{__name__}", line 0, in fail
  File "{__name__}", line 0, in <lambda>
builtins.KeyError"""

GOLDEN: dict[tuple[str, str], dict[str, Any]] = {
    ("challenge", "json"): {
        "timestamp": TIME,
        "level": "warning",
        "event": "challenge.settled",
        "customer_id": CUSTOMER,
        "owner": OWNER,
        "state": "rejected",
        "code": "refused",
        "attempt": 2,
    },
    ("challenge", "ecs"): ECS
    | {
        "log.level": "warning",
        "message": "challenge.settled: refused",
        "event.action": "challenge.settled",
        "signer.customer_id": CUSTOMER,
        "signer.owner": OWNER,
        "signer.state": "rejected",
        "signer.code": "refused",
        "signer.attempt": 2,
    },
    ("challenge", "gcp"): {
        "time": TIME,
        "severity": "WARNING",
        "message": "challenge.settled: refused",
        "event": "challenge.settled",
        "customer_id": CUSTOMER,
        "owner": OWNER,
        "state": "rejected",
        "code": "refused",
        "attempt": 2,
    },
    ("request", "ecs"): ECS
    | {
        "log.level": "info",
        "message": "http.request: overloaded",
        "event.action": "http.request",
        "http.request.id": "r-1",
        "signer.caller": "wallet",
        "http.request.method": "POST",
        "signer.route": "/v1/customers",
        "http.response.status_code": 503,
        "signer.code": "overloaded",
        "http.request.body.bytes": 90,
        "event.duration": 1_234_000,
    },
    ("request", "gcp"): {
        "time": TIME,
        "severity": "INFO",
        "message": "http.request: overloaded",
        "event": "http.request",
        "request_id": "r-1",
        "caller": "wallet",
        "code": "overloaded",
        "bytes_in": 90,
        "httpRequest": {
            "requestMethod": "POST",
            "requestUrl": "/v1/customers",
            "status": 503,
            "latency": "0.001234s",
        },
    },
    ("error", "ecs"): ECS
    | {
        "log.level": "error",
        "message": "http.unexpected_error",
        "event.action": "http.unexpected_error",
        "error.type": "builtins.KeyError",
        "error.stack_trace": STACK,
    },
    ("error", "gcp"): {
        "time": TIME,
        "severity": "ERROR",
        "message": "http.unexpected_error",
        "event": "http.unexpected_error",
        "error": "builtins.KeyError",
        "stack_trace": STACK,
    },
    ("library", "ecs"): ECS
    | {"log.level": "warning", "message": "slow", "event.action": "library.message", "log.logger": "asyncio"},
    ("library", "gcp"): {
        "time": TIME,
        "severity": "WARNING",
        "message": "slow",
        "event": "library.message",
        "logger": "asyncio",
    },
    ("store", "ecs"): ECS
    | {
        "log.level": "warning",
        "message": "store.warning: AOF is off.",
        "event.action": "store.warning",
        "event.reason": "AOF is off.",
    },
    ("store", "gcp"): {
        "time": TIME,
        "severity": "WARNING",
        "message": "store.warning: AOF is off.",
        "event": "store.warning",
        "reason": "AOF is off.",
    },
}


def without_line_numbers(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line in which every frame is at line 0."""
    for name in ("error.stack_trace", "stack_trace"):
        if name in line:
            head, *frames, error = line[name].split("\n")
            shown = [f"{frame[: frame.index(', line ')]}, line 0,{frame[frame.rindex(' in ') :]}" for frame in frames]
            line[name] = "\n".join([head, *shown, error])
    return line


@pytest.mark.parametrize(("name", "form"), GOLDEN)
def test_line_has_the_names_of_its_format(name: str, form: LogFormat) -> None:
    """Those of json are the catalogue's."""
    assert without_line_numbers(line_of(name, form)) == GOLDEN[name, form]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["challenge", "request", "error", "library", "store"])
def test_line_of_any_format_is_read_as_the_same_fields(name: str, form: LogFormat) -> None:
    """Frames, durations and messages included."""
    assert read_line(line_of(name, form)) == line_of(name, "json")


@pytest.mark.parametrize("line", ['{"event": "service.ready"}', "{}", '{"@timestamp": 1, "time": 1, "severity": "x"}'])
def test_line_of_another_program_is_not_read(line: str) -> None:
    """It has not the names of any format."""
    assert read_line(json.loads(line)) is None


def test_trace_has_the_names_of_its_format() -> None:
    """Elastic and Google Cloud link the line to the trace by them."""
    fields = {"trace_id": "ab" * 16}
    for form, name in {"ecs": "trace.id", "gcp": "logging.googleapis.com/trace"}.items():
        with captured_logs(form=form) as log:  # type: ignore[arg-type]
            write_event(HTTP_REQUEST, dict(fields))
        (line,) = log.all()
        assert line[name] == fields["trace_id"]
        assert read_line(line) == {"timestamp": TIME, "level": "info", "event": "http.request", **fields}


@pytest.mark.parametrize("form", FORMATS)
def test_line_of_any_format_names_the_request(form: LogFormat) -> None:
    """It comes from the context."""
    origin = ORIGIN.set(Origin("r-2", "wallet"))
    try:
        line = read_line(line_of("store", form))
    finally:
        ORIGIN.reset(origin)
    assert line is not None
    assert (line["request_id"], line["caller"]) == ("r-2", "wallet")
