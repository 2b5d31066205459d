"""Writes the plot and the generated parts of ``docs/performance.md`` again from the published result.

A generated part is between ``<!-- generated: NAME -->`` and ``<!-- end -->``; NAME is a section of the result. The
other numbers of the page are typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.plot import draw
from benchmarks.sections import SECTIONS
from benchmarks.tables import as_markdown

LATEST: Final = Path(__file__).parent / "results" / "latest.json"
"""The published result. It is committed; a test checks that the page and the plot are made from it."""

_DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = _DOCS / "performance.md"
PLOT: Final = _DOCS / "performance.svg"
_PART: Final = re.compile(r"(?<=<!-- generated: )([a-z]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def load_result(file: Path = LATEST) -> dict[str, Any]:
    """Return the sections of a result file; none if there is no file."""
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def render_page(page: str, result: Mapping[str, Any]) -> str:
    """Return the page with its generated parts made from ``result``."""
    return _PART.sub(lambda part: f"{part[1]}{part[2]}{_part(part[1], result.get(part[1]))}\n", page)


def write_page() -> None:
    """Write both files."""
    result = load_result()
    PAGE.write_text(render_page(PAGE.read_text("utf-8"), result), "utf-8")
    PLOT.write_text(draw(result), "utf-8")


def main(argv: Sequence[str]) -> None:
    """Write both files; there are no arguments."""
    del argv
    write_page()


def _part(name: str, section: Mapping[str, Any] | None) -> str:
    if section is None:
        return f"Not measured yet: `{SECTIONS[name].command}`."
    where = "{date}, commit {commit}, {machine}, {versions}, load average before {load}".format(**section["measured"])
    return f"{as_markdown(SECTIONS[name].columns, section['rows'])}\n\n{section['how']} ({where})."
