"""The pages that are generated from the code are current."""

from __future__ import annotations

import re

import pytest

from signer.observability.event import CATALOGUE
from tests.support.pages import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_current(name: str) -> None:
    """``make docs`` writes it."""
    assert (DOCS / name).read_text("utf-8") == PAGES[name]()


def test_page_that_an_event_refers_to_exists() -> None:
    """The person on call follows the link at night."""
    pages = {page for event in CATALOGUE.values() for page in re.findall(r"docs/([\w/-]+\.md)", event.action)}
    assert pages
    assert [page for page in pages if not (DOCS / page).exists()] == []
