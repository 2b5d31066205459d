"""What the service wrote all day: every line a registered event, none an error, and nothing in them that is secret.

A secret shows in two ways: as one that is known (credentials, the caller's token, the nonces of challenges), and by its
length. A challenge, a signature, a key and a bearer token are unbroken runs of more letters and digits than any name
that lines hold; the longest of those is an address.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from signer.observability.events import irregularities

_LONGEST_NAME: Final = len("0x") + 40
_LONG: Final = re.compile(rf"[A-Za-z0-9+=]{{{_LONGEST_NAME + 1},}}")
_NONCE: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{16}(?![A-Za-z0-9])")
_MOST_COMPLAINTS: Final = 20


@dataclass(slots=True)
class LogFindings:
    """What the lines said.

    Attributes:
        lines: how many.
        events: how many of each.
        complaints: what was wrong with them, the first few.
    """

    lines: int = 0
    events: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


def read_logs(files: Iterable[Path], secrets: Collection[str], nonces: Collection[str]) -> LogFindings:
    """Read them line by line: a day's do not fit in memory."""
    found = LogFindings()
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                found.lines += 1
                found.complaints += [
                    f"{file.name}: {what}" for what in _wrong_with(line, found.events, secrets, nonces)
                ]
                del found.complaints[_MOST_COMPLAINTS:]
    return found


def _wrong_with(line: str, events: Counter[str], secrets: Collection[str], nonces: Collection[str]) -> Iterable[str]:
    """Say what is wrong with a line, without repeating what is secret in it."""
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
    if event.get("level") == "error":
        yield f"{name}: an error"
    if any(secret in line for secret in secrets):
        yield f"{name}: a credential"
    if any(run in nonces for run in _NONCE.findall(line)):
        yield f"{name}: a challenge's nonce"
    if _LONG.search(line):
        yield f"{name}: something as long as a challenge, a signature or a key"
