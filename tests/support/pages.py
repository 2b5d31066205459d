"""The pages that are generated from the code. ``make docs`` writes them, and a test checks that they are current."""

from __future__ import annotations

from pathlib import Path

from tests.support.errors_page import errors_page
from tests.support.events_page import events_page
from tests.support.metrics_page import metrics_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"errors.md": errors_page, "events.md": events_page, "metrics.md": metrics_page}

if __name__ == "__main__":
    for name, make_page in PAGES.items():
        (DOCS / name).write_text(make_page(), "utf-8")
