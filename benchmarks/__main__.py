"""``python -m benchmarks [NAME] [ARGUMENT …]``: run one benchmark, by default ``challenges``; ``list`` lists them all.

A benchmark is a module of this package with a ``main(argv)``; the list shows the first line of its docstring.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import benchmarks

_DEFAULT = "challenges"


def discover() -> dict[str, ModuleType]:
    """Return the modules of this package that have a ``main``."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "main")}


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that ``argv`` names; return the exit status."""
    found = discover()
    name, *arguments = argv if argv and not argv[0].startswith("-") else (_DEFAULT, *argv)
    if name in found:
        run: Callable[[Sequence[str]], int | None] = found[name].main
        return run(arguments) or 0
    for each, module in found.items():
        print(f"python -m benchmarks {each:15} {(module.__doc__ or '').splitlines()[0]}")
    return 0 if name == "list" else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
