from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog

from signer.application.origin import ORIGIN, Origin
from signer.application.ports import AuditEvent, EventName
from signer.observability.events import (
    CHALLENGE_EVENTS,
    HTTP_UNEXPECTED_ERROR,
    KEYS_LOADED,
    SERVICE_READY,
    SERVICE_STOPPING,
    irregularities,
)
from signer.observability.logs import LibraryHandler, configure_logging
from signer.observability.writers import StructlogAudit, StructlogRequestLog, emit
from signer.web.request_summary import Exchange
from tests.support.log_lines import LogLines, captured_logs
from tests.support.messages import golden_vector

SECRET = "correct-horse-battery"


@pytest.fixture
def log() -> Iterator[LogLines]:
    """The logs, at debug level."""
    with captured_logs() as lines:
        yield lines


def an_event(name: EventName = EventName.SIGNED) -> AuditEvent:
    """Make an audit event with every field that its kind may have."""
    values: dict[str, object] = {
        "challenge_id": "2d" + "ab" * 16,
        "state": "signed",
        "code": "not_signed",
        "key_uri": "keystore:/keys/a.json",
        "attempt": 1,
        "status": 204,
        "duration_ms": 1.23456,
        "idempotency_key": "5cb5c7a0-6d3c-5a58-8d6a-0d1f8f0c9d11",
    }
    fields = {field: value for field, value in values.items() if field in CHALLENGE_EVENTS[name].fields}
    return AuditEvent(name=name, customer_id="04c5851c-4386-5bd9-9f89-08312f8aee3a", owner="eip155:1:0x00", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EventName)
def test_every_move_becomes_one_registered_line(log: LogLines, name: EventName) -> None:
    """It has the event's fields, its level, an RFC 3339 timestamp in UTC, and these three stand in front."""
    StructlogAudit().write(an_event(name))
    (line,) = log.all()
    assert irregularities(line) == ()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.keys() - {"timestamp", "level", "event"} == CHALLENGE_EVENTS[name].fields
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
    assert line["timestamp"].endswith("Z")
    assert line.get("duration_ms", 1.235) == 1.235


def test_a_field_without_a_value_is_left_out(log: LogLines) -> None:
    """There are no nulls in a line."""
    StructlogAudit().write(AuditEvent(name=EventName.REFUSED, customer_id="c", owner="o"))
    (line,) = log.all()
    assert line.keys() == {"timestamp", "level", "event", "customer_id", "owner"}


def test_a_line_carries_the_request_behind_it(log: LogLines) -> None:
    """Request id and caller come from the context; without one there are none."""
    audit = StructlogAudit()
    origin = ORIGIN.set(Origin("r-1", "wallet"))
    audit.write(an_event())
    ORIGIN.reset(origin)
    audit.write(an_event())
    first, second = log.all()
    assert (first["request_id"], first["caller"]) == ("r-1", "wallet")
    assert not {"request_id", "caller"} & second.keys()


async def test_work_that_outlives_its_request_keeps_its_origin(log: LogLines) -> None:
    """A task started for a request writes that request's id, also after the request has gone."""
    audit = StructlogAudit()

    async def work() -> None:
        await asyncio.sleep(0)
        audit.write(an_event())

    async def request(number: int) -> asyncio.Task[None]:
        ORIGIN.set(Origin(f"r-{number}"))
        return asyncio.create_task(work())

    for task in [await asyncio.create_task(request(number)) for number in range(3)]:
        await task
    assert [line["request_id"] for line in log.all()] == ["r-0", "r-1", "r-2"]
    assert ORIGIN.get() is None


def an_exchange(**changes: object) -> Exchange:
    """Make an exchange."""
    return Exchange(**({"request_id": "r", "method": "GET", "route": "/readyz", "status": 200} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exchange", "event", "level"),
    [
        (an_exchange(), "http.probe", "debug"),
        (an_exchange(route="/healthz"), "http.probe", "debug"),
        (an_exchange(status=503, code="store_unavailable"), "http.request", "info"),
        (an_exchange(route="/v1/keys"), "http.request", "info"),
        (an_exchange(route="/v1/keys", status=None), "http.request", "info"),
    ],
)
def test_an_exchange_becomes_one_line(log: LogLines, exchange: Exchange, event: str, level: str) -> None:
    """A probe that went well is for debugging; all else is the request's canonical line."""
    StructlogRequestLog().answered(exchange)
    (line,) = log.all()
    assert irregularities(line) == ()
    assert (line["event"], line["level"], line["request_id"]) == (event, level, "r")
    assert line.get("status") == exchange.status


def raise_secretly() -> None:
    """Fail with a message that must not be seen, for a reason that must not either."""
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"cannot use {SECRET}") from error


def test_an_error_is_shown_by_its_types_and_frames_only(log: LogLines) -> None:
    """No message, no values, no source, no paths; the cause is named."""
    with pytest.raises(ValueError, match=SECRET) as caught:
        raise_secretly()
    StructlogRequestLog().failed(caught.value)
    (line,) = log.all()
    assert irregularities(line) == ()
    assert line["event"] == HTTP_UNEXPECTED_ERROR.name
    assert line["error"] == "builtins.ValueError from builtins.KeyError"
    assert [frame.split(":")[1] for frame in line["frames"]] == [
        "test_an_error_is_shown_by_its_types_and_frames_only",
        "raise_secretly",
    ]
    assert SECRET not in log.text
    assert "/" not in log.text


def test_a_deep_recursion_is_cut_to_its_innermost_frames(log: LogLines) -> None:
    """A line stays a line."""

    def dive(depth: int) -> None:
        if depth == 0:
            raise RuntimeError(SECRET)
        dive(depth - 1)

    with pytest.raises(RuntimeError) as caught:
        dive(200)
    emit(HTTP_UNEXPECTED_ERROR, error=caught.value)
    assert len(log.all()[0]["frames"]) == 30


def test_errors_that_cause_each_other_end(log: LogLines) -> None:
    """A circle of causes is told once."""
    one, other = ValueError(), TypeError()
    one.__cause__, other.__cause__ = other, one
    emit(HTTP_UNEXPECTED_ERROR, error=one)
    assert log.all()[0]["error"] == "builtins.ValueError from builtins.TypeError"


def test_the_level_decides_what_is_written() -> None:
    """At ``warning`` an info event is not written."""
    with captured_logs("warning") as lines:
        emit(SERVICE_READY, port=1)
        emit(HTTP_UNEXPECTED_ERROR)
    assert [line["event"] for line in lines.all()] == ["http.unexpected_error"]


@pytest.mark.asyncio_errors
@pytest.mark.parametrize("name", ["aiohttp.server", "redis", "asyncio", "web3", ""])
def test_libraries_write_the_same_lines_from_warning_on(log: LogLines, name: str) -> None:
    """Their warnings and errors become ``library.message``; below that nothing is written."""
    logger = logging.getLogger(name)
    logger.info("not of interest")
    logger.warning("lost %s", "connection")
    logger.error("gone")
    assert [(line["event"], line["level"], line["message"]) for line in log.all()] == [
        ("library.message", "warning", "lost connection"),
        ("library.message", "error", "gone"),
    ]
    assert {line["logger"] for line in log.all()} == {name or "root"}
    assert not [what for line in log.all() for what in irregularities(line)]


def test_a_message_that_does_not_fit_its_arguments_does_no_harm(log: LogLines) -> None:
    """It is told that there was one, without its arguments."""
    LibraryHandler().handle(logging.makeLogRecord({"msg": "%d", "args": (SECRET,), "levelno": logging.ERROR}))
    (line,) = log.all()
    assert line["message"] == "a message that could not be put together"
    assert SECRET not in log.text


@pytest.mark.parametrize("exc_info", [SECRET, 1, True, {"a": SECRET}])
def test_an_exception_that_is_none_is_left_out(log: LogLines, exc_info: object) -> None:
    """Whatever else somebody hands over as ``exc_info`` is not shown."""
    structlog.get_logger().info("service.ready", exc_info=exc_info)
    (line,) = log.all()
    assert line.keys() == {"timestamp", "level", "event"}


def test_a_library_cannot_write_a_secret(log: LogLines) -> None:
    """Not in its message, not in a second line, not in an exception."""
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


def test_a_warning_becomes_a_line(log: LogLines) -> None:
    """Python's own warnings do not go to standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    (line,) = log.all()
    assert (line["event"], line["logger"]) == ("library.message", "py.warnings")


@pytest.mark.asyncio_errors
async def test_a_task_that_failed_unseen_is_told_without_its_message(log: LogLines) -> None:
    """By itself, asyncio would write the exception's text."""

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


def test_the_services_own_events_are_written_by_name(log: LogLines) -> None:
    """``emit`` takes an event of the catalogue and its fields."""
    emit(KEYS_LOADED, loaded=3, missing=0, failed=0, duration_ms=12.34567)
    emit(SERVICE_STOPPING, reason=None)
    loaded, stopping = log.all()
    assert (loaded["level"], loaded["loaded"], loaded["duration_ms"]) == ("info", 3, 12.346)
    assert "reason" not in stopping


class Broken(io.BytesIO):
    """A pipe whose reader has gone."""

    def flush(self) -> None:
        """Fail as a pipe does."""
        raise BrokenPipeError


@pytest.mark.parametrize("closed", [True, False])
def test_writing_never_raises(closed: bool) -> None:
    """A stream that is closed or broken loses the line, and nothing else happens."""
    stream = Broken()
    with captured_logs():
        configure_logging(stream=stream)
        if closed:
            stream.close()
        StructlogAudit().write(an_event())
        logging.getLogger("x").warning("y")


def test_the_stream_is_kept_alive() -> None:
    """A logger that holds its file weakly would write into nothing once nobody else holds it."""
    written: list[bytes] = []

    class Stream(io.BytesIO):
        def write(self, line: bytes) -> int:  # type: ignore[override]
            written.append(line)
            return len(line)

    with captured_logs():
        configure_logging(stream=Stream())
        gc.collect()
        structlog.get_logger().info("service.ready")
    assert json.loads(written[0])["event"] == "service.ready"


def test_a_person_at_a_terminal_reads_text() -> None:
    """The console form redacts as the other does, and has no colours where there is no terminal."""
    with captured_logs(form="console") as lines:
        emit(SERVICE_READY, host="127.0.0.1", port=8080)
        structlog.get_logger().info("x", password=SECRET)
        emit(HTTP_UNEXPECTED_ERROR, error=ValueError(SECRET))
    assert "service.ready" in lines.text
    assert "port=8080" in lines.text
    assert SECRET not in lines.text
    assert "\x1b" not in lines.text
