"""Checks every log line of a soak run: it is a registered event, no error, and contains no secret.

Secrets are found in two ways: known ones (credentials, the caller's token, nonces) by their text, others by their
length. A challenge, a signature, a key and a bearer token have more consecutive letters and digits than any name in the
log; the longest name is an address.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.irregularities import OUTAGES, irregularities

_LONGEST_NAME: Final = len("0x") + 40
_LONG: Final = re.compile(rf"[A-Za-z0-9+=]{{{_LONGEST_NAME + 1},}}")
_NONCE: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{16}(?![A-Za-z0-9])")
_MOST_PROBLEMS: Final = 20


@dataclass(slots=True)
class LogFindings:
    """The result of the check.

    Attributes:
        lines: number of lines.
        events: number of lines by event.
        problems: the first problems.
    """

    lines: int = 0
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def read_logs(files: Iterable[Path], secrets: Collection[str], nonces: Collection[str]) -> LogFindings:
    """Check log files line by line, because they do not fit in memory."""
    found = LogFindings()
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                found.lines += 1
                found.problems += [f"{file.name}: {what}" for what in _problems_of(line, found.events, secrets, nonces)]
                del found.problems[_MOST_PROBLEMS:]
    return found


def _problems_of(line: str, events: Counter[str], secrets: Collection[str], nonces: Collection[str]) -> Iterable[str]:
    """Return the problems of a line, without the secrets in it."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        yield "a line is no event"
        return
    name = str(event.get("event"))
    events[name] += 1
    yield from irregularities(event)
    if event.get("level") == "error" and name not in OUTAGES:
        yield f"{name}: an error"
    if any(secret in line for secret in secrets):
        yield f"{name}: a credential"
    if any(run in nonces for run in _NONCE.findall(line)):
        yield f"{name}: a challenge's nonce"
    if _LONG.search(line):
        yield f"{name}: something as long as a challenge, a signature or a key"
