"""``signer logs``: read log lines, and print them for a person."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, Final

import click

from signer.observability.formats import read_line

_LEVELS: Final = ("debug", "info", "warning", "error")
_COLOURS: Final = {"debug": "blue", "info": "green", "warning": "yellow", "error": "red"}
_FIRST_FIELDS: Final = ("method", "route", "status", "state", "code", "cause", "reason", "duration_ms", "attempt")
_LAST_FIELDS: Final = ("owner", "customer_id", "challenge_id", "request_id", "caller")
_NOT_IN_ROW: Final = frozenset({"timestamp", "level", "event", "frames"})
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERRUPTED: Final = 130


def age(value: str) -> float:
    """Return a time such as ``15m`` in seconds. The name is shown in the help."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a number with s, m, h or d, such as 15m.")
    return float(found[1]) * _SECONDS[found[2]]


@click.command("logs")
@click.argument("files", nargs=-1, type=click.File("rb"))
@click.option("--level", type=click.Choice(_LEVELS), default="debug", help="Only lines of this level and above.")
@click.option("--event", "events", multiple=True, help="Only these events, such as 'store.*'; may be repeated.")
@click.option("--request-id", help="Only lines of this request.")
@click.option("--challenge-id", help="Only lines about this challenge.")
@click.option("--owner", help="Only lines about this account: CAIP-10, or the address only.")
@click.option("--since", type=age, help="Only lines that are not older, such as 30s, 15m, 2h or 1d.")
@click.option("--explain", is_flag=True, help="Add what to do about warnings and errors.")
@click.option("--color/--no-color", default=None, help="Default: colours if standard output is a terminal.")
def logs_command(  # noqa: PLR0913 - the options of a command
    *,
    files: Sequence[BinaryIO],
    level: str,
    events: Sequence[str],
    request_id: str | None,
    challenge_id: str | None,
    owner: str | None,
    since: float | None,
    explain: bool,
    color: bool | None,
) -> None:
    """Read log lines of the formats json, ecs or gcp from FILES or standard input, and print them for a person.

    For example: kubectl logs -f --tail=-1 --since=1h -l app.kubernetes.io/name=challenge-signer
    | signer logs --level warning --explain

    Lines of other programs pass through unchanged. docs/events.md lists all events and fields.
    """
    if not files and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("Nothing to read. Pipe a log into this command, or name a file.")
    oldest = None if since is None else time.time() - since

    def is_wanted(line: Mapping[str, Any]) -> bool:
        return (
            _LEVELS.index(line["level"]) >= _LEVELS.index(level)
            and (not events or any(fnmatchcase(line["event"], pattern) for pattern in events))
            and (request_id is None or line.get("request_id") == request_id)
            and (challenge_id is None or line.get("challenge_id") == challenge_id)
            and (owner is None or _is_owner(line.get("owner"), owner))
            and (oldest is None or _time_of(line).timestamp() >= oldest)
        )

    is_coloured = sys.stdout.isatty() if color is None else color
    actions = _actions() if explain else {}
    try:
        for file in files or (sys.stdin.buffer,):
            _print_lines(file, is_wanted, actions, is_coloured=is_coloured)
    except BrokenPipeError:  # the reader has seen enough; Python would complain again when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _print_lines(
    file: BinaryIO, is_wanted: Callable[[Mapping[str, Any]], bool], actions: Mapping[str, str], *, is_coloured: bool
) -> None:
    """Print each line as soon as it is there."""

    def style(text: str, **how: Any) -> str:  # noqa: ANN401 - click's
        return click.style(text, **how) if is_coloured and text else text

    out = sys.stdout.buffer
    for raw in iter(file.readline, b""):
        text = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        start = max(text.find("{"), 0)  # after what kubectl --prefix and others put in front
        line = _parsed(text[start:])
        if line is None:
            out.write(style(text, dim=True).encode("utf-8", "surrogateescape") + b"\n" if is_coloured else raw)
        elif is_wanted(line):
            shown = style(text[:start], dim=True) + _row(line, actions, style)
            out.write(f"{shown}\n".encode("utf-8", "surrogateescape"))
        out.flush()


def _parsed(text: str) -> dict[str, Any] | None:
    """Return the fields of a line, or ``None`` if it is not one of this service."""
    try:
        parsed = json.loads(text)
        line = read_line(parsed) if isinstance(parsed, dict) else None
        if line is None or line["level"] not in _LEVELS or not isinstance(line["event"], str):
            return None
        _time_of(line)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return line


def _is_owner(found: object, wanted: str) -> bool:
    """Return whether ``found`` is the account ``wanted``: CAIP-10, or the address only."""
    return isinstance(found, str) and f":{found}".lower().endswith(f":{wanted.lower()}")


def _time_of(line: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(line["timestamp"]).astimezone(UTC)


def _row(line: Mapping[str, Any], actions: Mapping[str, str], style: Callable[..., str]) -> str:
    others = [name for name in line if name not in {*_FIRST_FIELDS, *_LAST_FIELDS, *_NOT_IN_ROW}]
    names = [name for name in (*_FIRST_FIELDS, *others, *_LAST_FIELDS) if name in line]
    fields = " ".join(style(f"{name}=", dim=True) + _shown(line[name]) for name in names)
    level = style(f"{line['level'].upper():7}", fg=_COLOURS[line["level"]])
    at = f"{_time_of(line):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"
    row = f"{at} {level} {style(_shown(line['event']), bold=True)} {fields}".rstrip()
    frames = line.get("frames")
    shown_frames = "".join(f"\n    {_shown(frame)}" for frame in frames) if isinstance(frames, list) else ""
    action = actions.get(line["event"]) if line["level"] in {"warning", "error"} else None
    return row + shown_frames + (f"\n    {style(f'→ {action}', fg='cyan')}" if action else "")


def _shown(value: object) -> str:
    """Return a value as text in which no character can control the terminal."""
    if isinstance(value, str) and value.isprintable():
        return json.dumps(value, ensure_ascii=False) if " " in value or not value else value
    return json.dumps(value)


def _actions() -> dict[str, str]:
    """Return what to do about each event."""
    from signer.observability import challenge_events, events, http_events
    from signer.observability.event import CATALOGUE

    assert all((challenge_events, events, http_events)), "they fill the catalogue"  # noqa: S101
    return {event.name: event.action for event in CATALOGUE.values() if event.action}
