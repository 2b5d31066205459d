from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import cast

import pytest

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, AuditFields, EventName
from signer.observability.challenge_events import CHALLENGE_EVENTS
from signer.observability.events import (
    KEYS_LOADED,
    SERVICE_READY,
    SERVICE_STOPPING,
)
from signer.observability.http_events import HTTP_UNEXPECTED_ERROR
from signer.observability.logs import LibraryHandler, write_event
from signer.observability.writers import AuditLogLines, RequestLogLines, emit
from signer.web.request_summary import RequestSummary
from tests.support.irregularities import irregularities
from tests.support.log_lines import LogLines, captured_logs
from tests.support.messages import golden_vector

SECRET = "correct-horse-battery"


@pytest.fixture
def log() -> Iterator[LogLines]:
    """The logs, at debug level."""
    with captured_logs() as lines:
        yield lines


def audit_event(name: EventName = EventName.SIGNED) -> AuditEvent:
    """Return an audit event with every field that its kind may have."""
    values: AuditFields = {
        "challenge_id": "2d" + "ab" * 16,
        "customer_id": "04c5851c-4386-5bd9-9f89-08312f8aee3a",
        "owner": "eip155:1:0x00",
        "state": "signed",
        "code": "not_signed",
        "key_uri": "keystore:/keys/a.json",
        "attempt": 1,
        "status": 204,
        "duration_ms": 1.23456,
        "upstream_status": "active",
        "cause": "throttled",
        "reason": "AWS KMS is throttling.",
        "idempotency_key": "5cb5c7a0-6d3c-5a58-8d6a-0d1f8f0c9d11",
    }
    fields = {field: value for field, value in values.items() if field in CHALLENGE_EVENTS[name].fields}
    return AuditEvent(name, cast("AuditFields", fields))


@pytest.mark.parametrize("name", EventName)
def test_audit_event_becomes_one_line(log: LogLines, name: EventName) -> None:
    """The line has the event's fields and begins with a UTC timestamp (RFC 3339), the level and the name."""
    AuditLogLines().write(audit_event(name))
    (line,) = log.all()
    assert irregularities(line) == ()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.keys() - {"timestamp", "level", "event"} == CHALLENGE_EVENTS[name].fields
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
    assert line["timestamp"].endswith("Z")
    assert line.get("duration_ms", 1.235) == 1.235


@pytest.mark.parametrize(
    ("state", "code", "level"),
    [
        ("verified", None, "info"),
        ("already_signed", "already_signed_upstream", "info"),
        ("superseded", "replaced_upstream", "info"),
        ("expired", "not_forwarded", "info"),
        ("rejected", "refused_by_card_api", "warning"),
        ("rejected", "policy_changed", "warning"),
        ("expired", "not_delivered", "warning"),
        ("expired", "not_signed", "warning"),
        ("expired", "outcome_unknown", "warning"),
    ],
)
def test_settlement_without_the_proof_that_was_asked_for_is_a_warning(
    log: LogLines, state: str, code: str | None, level: str
) -> None:
    """Mass rejections are seen by their level, in one line each; what is routine stays ``info``."""
    AuditLogLines().write(AuditEvent(EventName.SETTLED, {"owner": "o", "state": state, "code": code}))
    (line,) = log.all()
    assert (line["event"], line["level"], line["state"]) == ("challenge.settled", level, state)
    assert irregularities(line) == ()


def test_field_without_a_value_is_left_out(log: LogLines) -> None:
    """A line has no nulls."""
    AuditLogLines().write(AuditEvent(EventName.REFUSED, {"customer_id": "c", "owner": "o", "code": None}))
    (line,) = log.all()
    assert line.keys() == {"timestamp", "level", "event", "customer_id", "owner"}


def test_line_has_the_request_that_caused_it(log: LogLines) -> None:
    """Request id and caller come from the context; without a request the line has neither."""
    audit = AuditLogLines()
    origin = ORIGIN.set(Origin("r-1", "wallet"))
    audit.write(audit_event())
    ORIGIN.reset(origin)
    audit.write(audit_event())
    first, second = log.all()
    assert (first["request_id"], first["caller"]) == ("r-1", "wallet")
    assert not {"request_id", "caller"} & second.keys()


async def test_task_that_outlives_its_request_keeps_the_request_id(log: LogLines) -> None:
    """A task started for a request logs that request's id after the request has ended."""
    audit = AuditLogLines()

    async def work() -> None:
        await asyncio.sleep(0)
        audit.write(audit_event())

    async def request(number: int) -> asyncio.Task[None]:
        ORIGIN.set(Origin(f"r-{number}"))
        return asyncio.create_task(work())

    for task in [await asyncio.create_task(request(number)) for number in range(3)]:
        await task
    assert [line["request_id"] for line in log.all()] == ["r-0", "r-1", "r-2"]
    assert ORIGIN.get() is None


def summary_of(**changes: object) -> RequestSummary:
    """Return the summary of a successful probe, with changes."""
    return RequestSummary(**({"request_id": "r", "method": "GET", "route": "/readyz", "status": 200} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("summary", "event", "level"),
    [
        (summary_of(), "http.probe", "debug"),
        (summary_of(route="/healthz"), "http.probe", "debug"),
        (summary_of(status=503, code="store_unavailable"), "http.request", "info"),
        (summary_of(route="/v1/keys"), "http.request", "info"),
        (summary_of(route="/v1/keys", status=None), "http.request", "info"),
    ],
)
def test_request_becomes_one_line(log: LogLines, summary: RequestSummary, event: str, level: str) -> None:
    """A probe that got 200 is a debug line; every other request has its canonical line."""
    RequestLogLines().request_finished(summary)
    (line,) = log.all()
    assert irregularities(line) == ()
    assert (line["event"], line["level"], line["request_id"]) == (event, level, "r")
    assert line.get("status") == summary.status


def raise_secretly() -> None:
    """Raise an error whose message, and whose cause's message, must not be shown."""
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"cannot use {SECRET}") from error


def test_error_is_shown_as_types_and_frames(log: LogLines) -> None:
    """The line has the type of the cause, but no message, value, source or path."""
    with pytest.raises(ValueError, match=SECRET) as caught:
        raise_secretly()
    RequestLogLines().unexpected_error(caught.value)
    (line,) = log.all()
    assert irregularities(line) == ()
    assert line["event"] == HTTP_UNEXPECTED_ERROR.name
    assert line["error"] == "builtins.ValueError from builtins.KeyError"
    assert [frame.split(":")[1] for frame in line["frames"]] == [
        "test_error_is_shown_as_types_and_frames",
        "raise_secretly",
    ]
    assert SECRET not in log.text
    assert "/" not in log.text


def test_long_name_of_a_function_is_shown(log: LogLines) -> None:
    """It looks like base64, and is none."""

    def function_whose_name_has_at_least_forty_three_characters() -> None:
        raise RuntimeError(SECRET)

    with pytest.raises(RuntimeError) as caught:
        function_whose_name_has_at_least_forty_three_characters()
    emit(HTTP_UNEXPECTED_ERROR, error=caught.value)
    assert "function_whose_name_has_at_least_forty_three_characters" in log.all()[0]["frames"][-1]


def test_deep_traceback_is_cut_to_its_innermost_frames(log: LogLines) -> None:
    """At most 30 frames are shown."""

    def dive(depth: int) -> None:
        if depth == 0:
            raise RuntimeError(SECRET)
        dive(depth - 1)

    with pytest.raises(RuntimeError) as caught:
        dive(200)
    emit(HTTP_UNEXPECTED_ERROR, error=caught.value)
    assert len(log.all()[0]["frames"]) == 30


def test_errors_that_cause_each_other_are_shown_once(log: LogLines) -> None:
    """A cycle of causes does not loop."""
    one, other = ValueError(), TypeError()
    one.__cause__, other.__cause__ = other, one
    emit(HTTP_UNEXPECTED_ERROR, error=one)
    assert log.all()[0]["error"] == "builtins.ValueError from builtins.TypeError"


def test_event_below_the_level_is_not_written() -> None:
    """At ``warning`` an info event is dropped."""
    with captured_logs("warning") as lines:
        emit(SERVICE_READY, port=1)
        emit(HTTP_UNEXPECTED_ERROR)
    assert [line["event"] for line in lines.all()] == ["http.unexpected_error"]


@pytest.mark.asyncio_errors
@pytest.mark.parametrize("name", ["aiohttp.server", "redis", "asyncio", "web3", ""])
def test_warnings_and_errors_of_libraries_become_lines(log: LogLines, name: str) -> None:
    """They become ``library.message``; lower levels are dropped."""
    logger = logging.getLogger(name)
    logger.info("not of interest")
    logger.warning("lost %s", "connection")
    logger.error("gone")
    assert [(line["event"], line["level"], line["message"]) for line in log.all()] == [
        ("library.message", "warning", "lost connection"),
        ("library.message", "error", "gone"),
    ]
    assert {line["logger"] for line in log.all()} == {name or "root"}
    assert [found for line in log.all() for found in irregularities(line)] == []


def test_library_message_that_cannot_be_formatted_hides_its_arguments(log: LogLines) -> None:
    """A fixed text takes its place."""
    LibraryHandler().handle(logging.makeLogRecord({"msg": "%d", "args": (SECRET,), "levelno": logging.ERROR}))
    (line,) = log.all()
    assert line["message"] == "a message that could not be formatted"
    assert SECRET not in log.text


@pytest.mark.parametrize("exc_info", [SECRET, 1, True, {"a": SECRET}, (None, None, None)])
def test_exc_info_that_is_no_exception_is_left_out(log: LogLines, exc_info: object) -> None:
    """Another value of ``exc_info`` is not shown."""
    LibraryHandler().handle(logging.makeLogRecord({"name": "x", "levelno": 40, "exc_info": exc_info}))
    (line,) = log.all()
    assert line.keys() == {"timestamp", "level", "event", "logger", "message"}


def test_library_cannot_log_a_secret(log: LogLines) -> None:
    """A secret in a message, in a second line or in an exception is not shown."""
    logger = logging.getLogger("some.library")
    golden = golden_vector()
    logger.warning("sending %s with %r", golden.challenge, {"signature": golden.signature})
    logger.warning("first line\npassword is %s", SECRET)
    try:
        raise ConnectionError(f"redis://:{SECRET}@cache")
    except ConnectionError:
        logger.exception("cannot connect to redis://:%s@cache", SECRET)
    assert len(log.all()) == 3
    assert log.all()[2]["error"] == "builtins.ConnectionError"
    for secret in (golden.challenge, golden.signature, SECRET):
        assert secret not in log.text


def test_python_warning_becomes_a_line(log: LogLines) -> None:
    """It does not go to standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    (line,) = log.all()
    assert (line["event"], line["logger"]) == ("library.message", "py.warnings")


@pytest.mark.asyncio_errors
async def test_exception_of_a_forgotten_task_is_logged_without_its_message(log: LogLines) -> None:
    """Asyncio itself would write the message."""

    async def fail() -> None:
        raise ValueError(SECRET)

    asyncio.get_running_loop().set_exception_handler(None)
    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()
    (line,) = log.all()
    assert (line["logger"], line["message"]) == ("asyncio", "Task exception was never retrieved")
    assert line["error"] == "builtins.ValueError"
    assert SECRET not in log.text


def test_emit_writes_an_event(log: LogLines) -> None:
    """Durations are rounded to microseconds; a field that is ``None`` is left out."""
    emit(KEYS_LOADED, loaded=3, missing=0, failed=0, duration_ms=12.34567)
    emit(SERVICE_STOPPING, reason=None)
    loaded, stopping = log.all()
    assert (loaded["level"], loaded["loaded"], loaded["duration_ms"]) == ("info", 3, 12.346)
    assert "reason" not in stopping


def test_console_format_is_redacted_text() -> None:
    """Without a terminal it has no colours."""
    with captured_logs(form="console") as lines:
        emit(SERVICE_READY, host="127.0.0.1", port=8080)
        write_event(SERVICE_READY, {"password": SECRET})
        emit(HTTP_UNEXPECTED_ERROR, error=ValueError(SECRET))
    assert "service.ready" in lines.text
    assert "port=8080" in lines.text
    assert SECRET not in lines.text
    assert "\x1b" not in lines.text
