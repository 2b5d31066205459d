"""Hides installed packages from a program, to test its error about missing packages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_BLOCKER: Final = """\
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())

import importlib.util

find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names!r} else find(name, package)
"""


def without(folder: Path, *names: str) -> Path:
    """Create and return a folder that hides packages from a program if it is the program's ``PYTHONPATH``."""
    (folder / "sitecustomize.py").write_text(_BLOCKER.format(names=set(names)))
    return folder
