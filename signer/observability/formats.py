"""The formats of a log line. Each is a function that returns a line of an event, whose fields hold no secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from math import isfinite
from types import TracebackType
from typing import Any, Final

from signer.observability.fields import FIELDS
from signer.observability.redaction import is_sensitive_name

Format = Callable[[str, str, str, Mapping[str, Any], str], bytes]
"""Returns a line: ``(timestamp, level, event's name, fields, members)``; see ``plain_members``."""

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


def console(*, colours: bool) -> Format:
    """Return the format ``console``, for development."""
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415 - it imports rich, and production does not use it

    renderer = ConsoleRenderer(colors=colours)

    def render(timestamp: str, level: str, name: str, fields: Mapping[str, Any], _members: str) -> bytes:
        line = renderer(None, level, {"timestamp": timestamp, "level": level, "event": name, **_present(fields)})
        return f"{line}\n".encode("utf-8", "replace")

    return render


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


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
