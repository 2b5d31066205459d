"""The page that follows one challenge through the code names what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "one-challenge.md"
_LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>[^)]+\.py)\)")


def defined_names(path: Path) -> set[str]:
    """Return the functions and classes of a module, and the methods as ``Class.method``."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {node.name, *(f"{node.name}.{method.name}" for method in methods)}
    return names


def test_each_of_the_seven_steps_links_to_existing_code() -> None:
    """A link is a function, a class or a method, and the file that defines it."""
    steps = re.split(r"^## \d\. .*$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert len(steps) == 7
    assert [step for step in steps if not _LINK.search(step)] == []
    links = list(_LINK.finditer(PAGE.read_text()))
    missing = [link[0] for link in links if link["name"] not in defined_names(PAGE.parent / link["path"])]
    assert missing == []
