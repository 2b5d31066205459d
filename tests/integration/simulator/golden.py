"""The card API guide's own example: a real challenge and a real signature over it."""

from __future__ import annotations

import json
from pathlib import Path

_VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "golden.json").read_text())

GOLDEN_CHALLENGE: str = _VECTOR["challenge"]
GOLDEN_SIGNATURE: str = _VECTOR["signature"]
GOLDEN_OWNER: str = _VECTOR["recovers_to"]
