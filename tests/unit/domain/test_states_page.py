"""``docs/states.md`` lists every state and every code of a record."""

from __future__ import annotations

import re
from pathlib import Path

from signer.domain.lifecycle import ChallengeState, RecordCode

PAGE = Path(__file__).parents[3] / "docs" / "states.md"
FIRST_CELLS = re.findall(r"^\| (`[^|]+`) \|", PAGE.read_text("utf-8"), re.MULTILINE)
NAMES = {name for cell in FIRST_CELLS for name in re.findall(r"`(\w+)`", cell)}


def test_page_lists_every_state_and_code() -> None:
    """None is missing, and every listed one exists."""
    assert set(ChallengeState) | set(RecordCode) == NAMES
