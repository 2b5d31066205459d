"""``docs/states.md`` tells every state and every code that a record can have."""

from __future__ import annotations

import re
from pathlib import Path

from signer.domain.lifecycle import ChallengeState, RecordCode

PAGE = Path(__file__).parents[3] / "docs" / "states.md"
FIRST_CELLS = re.findall(r"^\| (`[^|]+`) \|", PAGE.read_text("utf-8"), re.MULTILINE)
NAMES = {name for cell in FIRST_CELLS for name in re.findall(r"`(\w+)`", cell)}


def test_the_page_has_a_row_for_every_state_and_every_code() -> None:
    """None is missing; and none is there that a record never has."""
    assert set(ChallengeState) | set(RecordCode) == NAMES
