"""The formats of a log line. Each is a function that returns a line of an event, whose fields hold no secret.

* ``json`` has the names of the catalogue.
* ``ecs`` has those of the Elastic Common Schema, and ``signer.…`` for fields that it does not define.
* ``gcp`` has those that Google Cloud Logging and Error Reporting take from a line on standard output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from math import isfinite
from types import TracebackType
from typing import Any, Final

from signer.observability.fields import FIELDS
from signer.observability.redaction import is_sensitive_name

Format = Callable[[str, str, str, Mapping[str, Any], str], bytes]
"""Returns a line: ``(timestamp, level, event's name, fields, members)``; see ``plain_members``."""

ECS_NAMES: Final = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "event": "event.action",
    "message": "message",
    "request_id": "http.request.id",
    "method": "http.request.method",
    "bytes_in": "http.request.body.bytes",
    "status": "http.response.status_code",
    "duration_ms": "event.duration",
    "reason": "event.reason",
    "error": "error.type",
    "frames": "error.stack_trace",
    "logger": "log.logger",
    "version": "service.version",
    "trace_id": "trace.id",
}
"""The names of the format ``ecs``. Other fields have the prefix ``ECS_OWN``."""
ECS_OWN: Final = "signer."
GCP_NAMES: Final = {
    "timestamp": "time",
    "level": "severity",
    "frames": "stack_trace",
    "trace_id": "logging.googleapis.com/trace",
}
"""The names of the format ``gcp``. Other fields have the catalogue's names."""
GCP_HTTP_NAMES: Final = {"method": "requestMethod", "route": "requestUrl", "status": "status", "duration_ms": "latency"}
"""The names in ``httpRequest``, which the format ``gcp`` has for each request."""

_FIELD_FOR_ECS: Final = {ecs: field for field, ecs in ECS_NAMES.items()}
_FIELD_FOR_GCP: Final = {gcp: field for field, gcp in GCP_NAMES.items()}
_ECS_CONSTANTS: Final = {"ecs.version": "8.11.0", "service.name": "challenge-signer"}
_NANOSECONDS: Final = 1_000_000  # of a millisecond
_FRAME: Final = re.compile(r'^  File "(.*)", line (\d+), in (.*)$', re.MULTILINE)
_MAX_FRAMES: Final = 30
_KEYS: Final = {name: f',"{name}":' for name in FIELDS if not is_sensitive_name(name)}


def _unencodable(value: object) -> str:
    return f"<{type(value).__name__}>"


_to_json: Final = json.JSONEncoder(separators=(",", ":"), default=_unencodable).encode


def plain_members(fields: Mapping[str, Any]) -> str | None:
    """Return the fields as members of a JSON object, each after a comma. Those that are ``None`` are left out.

    This is twice as fast as ``members``. Returns ``None`` if a field is not in the catalogue, has a sensitive name, or
    is neither a text nor a number.
    """
    parts: list[str] = []
    for name, value in fields.items():
        if value is None:
            continue
        key = _KEYS.get(name)
        if key is None:
            return None
        if isinstance(value, str):
            parts.append(key + encode_basestring_ascii(value))
        elif type(value) is int or (type(value) is float and isfinite(value)):
            parts.append(f"{key}{value!r}")
        else:
            return None
    return "".join(parts)


def members(fields: Mapping[str, Any]) -> str:
    """Return fields of any kind as members of a JSON object, each after a comma."""
    return "," + _to_json(fields)[1:-1] if fields else ""


def render_json(timestamp: str, level: str, name: str, _fields: Mapping[str, Any], members: str) -> bytes:
    """Return a line of the format ``json``."""
    return f'{{"timestamp":"{timestamp}","level":"{level}","event":"{name}"{members}}}\n'.encode("ascii")


def render_ecs(timestamp: str, level: str, name: str, fields: Mapping[str, Any], _members: str) -> bytes:
    """Return a line of the format ``ecs``."""
    line = _details(timestamp, level, name, fields)
    if _is_number(line.get("duration_ms")):
        line["duration_ms"] = round(line["duration_ms"] * _NANOSECONDS)
    named = {ECS_NAMES.get(field, ECS_OWN + field): value for field, value in line.items()}
    return f"{_to_json(named | _ECS_CONSTANTS)}\n".encode("ascii")


def render_gcp(timestamp: str, level: str, name: str, fields: Mapping[str, Any], _members: str) -> bytes:
    """Return a line of the format ``gcp``."""
    line = _details(timestamp, level.upper(), name, fields)
    if "method" in line:
        if _is_number(line.get("duration_ms")):
            line["duration_ms"] = f"{line['duration_ms'] / 1000:.6f}s"
        line["httpRequest"] = {gcp: line.pop(field) for field, gcp in GCP_HTTP_NAMES.items() if field in line}
    return f"{_to_json({GCP_NAMES.get(field, field): value for field, value in line.items()})}\n".encode("ascii")


FORMATS: Final[Mapping[str, Format]] = {"json": render_json, "ecs": render_ecs, "gcp": render_gcp}
"""The formats for machines, by the value of ``logging.format``."""


def _message(name: str, fields: Mapping[str, Any]) -> str:
    """Return a text for a list of lines: the library's message, or the event's name and its reason or code."""
    why = fields.get("reason") or fields.get("code")
    return str(fields.get("message") or (f"{name}: {why}" if why else name))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def _details(timestamp: str, level: str, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line's fields, with a message for every event, and with frames as Python shows them."""
    details = {"timestamp": timestamp, "level": level, "message": _message(name, fields), "event": name}
    details |= {name: value for name, value in fields.items() if value is not None and name != "message"}
    if isinstance(details.get("frames"), list):
        parts = [str(frame).split(":") for frame in details["frames"]]
        shown = [f'  File "{where[0]}", line {where[-1]}, in {":".join(where[1:-1])}' for where in parts]
        details["frames"] = "\n".join(["Traceback (most recent call last):", *shown, str(fields.get("error"))])
    return details


def read_line(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a line in any of ``FORMATS``, under the names of the catalogue; ``None`` if it has none."""
    if line.keys() >= {"timestamp", "level", "event"}:
        return dict(line)
    if line.keys() >= {"@timestamp", "log.level", "event.action"}:
        fields = {_FIELD_FOR_ECS.get(name, name.removeprefix(ECS_OWN)): value for name, value in line.items()}
        fields = {name: value for name, value in fields.items() if name not in _ECS_CONSTANTS}
        if isinstance(fields.get("duration_ms"), int):
            fields["duration_ms"] = round(fields["duration_ms"] / _NANOSECONDS, 3)
    elif line.keys() >= {"time", "severity", "event"}:
        fields = {_FIELD_FOR_GCP.get(name, name): value for name, value in line.items()}
        fields["level"] = str(fields["level"]).lower()
        if isinstance(request := fields.pop("httpRequest", None), dict):
            fields |= {field: request[gcp] for field, gcp in GCP_HTTP_NAMES.items() if gcp in request}
        if isinstance(duration := fields.get("duration_ms"), str):
            fields["duration_ms"] = round(float(duration.removesuffix("s")) * 1000, 3)
    else:
        return None
    if "logger" not in fields:
        fields.pop("message", None)  # made by ``_message``
    if isinstance(fields.get("frames"), str):
        fields["frames"] = [":".join((found[1], found[3], found[2])) for found in _FRAME.finditer(fields["frames"])]
    return fields


def console(*, colours: bool) -> Format:
    """Return the format ``console``, for development."""
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415 - it imports rich, and production does not use it

    renderer = ConsoleRenderer(colors=colours)

    def render(timestamp: str, level: str, name: str, fields: Mapping[str, Any], _members: str) -> bytes:
        present = {field: value for field, value in fields.items() if value is not None}
        line = renderer(None, level, {"timestamp": timestamp, "level": level, "event": name, **present})
        return f"{line}\n".encode("utf-8", "replace")

    return render


def error_fields(error: BaseException) -> dict[str, Any]:
    """Return the types of an exception and its causes, and its frames. Its message may hold a secret."""
    return {"error": " from ".join(_types(error)), "frames": _frames(error.__traceback__)}


def _types(error: BaseException) -> list[str]:
    types: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        types.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return types


def _frames(traceback: TracebackType | None) -> list[str]:
    """Return the frames as ``module:function:line``, outermost first: no paths, source or values."""
    frames: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        frames.append(f"{module}:{code.co_name}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return frames[-_MAX_FRAMES:]
