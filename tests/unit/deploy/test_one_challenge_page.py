"""The pages for newcomers name only code that exists, and the path of one challenge has seven steps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
_LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>[^)#]+\.py)\)")
_HEADING = re.compile(r"^## (?P<title>.*)$", re.MULTILINE)


def defined_names(path: Path) -> set[str]:
    """Return a module's functions, classes and constants, and what its classes define as ``Class.name``."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        names |= _names_of(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for item in node.body for name in _names_of(item)}
    return names


def _names_of(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case _:
            return set()


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading of the second level, by its title."""
    parts = _HEADING.split(page)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", ["one-challenge.md", "glossary.md"])
def test_every_code_link_names_a_definition_in_its_file(name: str) -> None:
    """A link is a function, a class, a method or a field; the file exists and defines it."""
    links = list(_LINK.finditer((DOCS / name).read_text("utf-8")))
    assert links
    missing = [link[0] for link in links if link["name"] not in defined_names(DOCS / link["path"])]
    assert missing == []


def test_page_has_seven_numbered_steps_with_one_link_each() -> None:
    """The links of the sections after step 7 do not count for it."""
    steps = {
        title: text
        for title, text in sections((DOCS / "one-challenge.md").read_text("utf-8")).items()
        if title[0].isdigit()
    }
    assert [title.partition(".")[0] for title in steps] == ["1", "2", "3", "4", "5", "6", "7"]
    assert {title: len(_LINK.findall(text)) for title, text in steps.items()} == dict.fromkeys(steps, 1)


def test_page_says_what_happens_after_a_failure() -> None:
    """The section names the loop that continues, and comes after the steps."""
    found = sections((DOCS / "one-challenge.md").read_text("utf-8"))
    assert list(found).index("If something fails") == 7
    assert "[`Recovery.run`]" in found["If something fails"]
