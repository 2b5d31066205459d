"""``python -m benchmarks [NAME [ARGUMENT …]]``: run one benchmark, or list them all.

A benchmark is a module of this package with a ``main(argv)``; the list shows the first line of its docstring.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import benchmarks


def discover() -> dict[str, ModuleType]:
    """Return the modules of this package that have a ``main``."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "main")}


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that ``argv`` names; return the exit status."""
    found = discover()
    if argv and argv[0] in found:
        run: Callable[[Sequence[str]], int | None] = found[argv[0]].main
        return run(argv[1:]) or 0
    for name, module in found.items():
        print(f"python -m benchmarks {name:12} {(module.__doc__ or '').splitlines()[0]}")
    return 2 if argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
