"""The inner layers import no libraries; import-linter checks the rest."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import signer

SIGNER = Path(signer.__file__).parent


def imported(folder: Path) -> Iterator[str]:
    """Yield the first part of the name of each module that the code in a folder imports."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize(("layer", "libraries"), [("domain", {"eth_hash"}), ("application", set())])
def test_inner_layers_import_no_libraries(layer: str, libraries: set[str]) -> None:
    """The domain needs Keccak, which the standard library does not have."""
    assert set(imported(SIGNER / layer)) - sys.stdlib_module_names - {"signer"} == libraries
