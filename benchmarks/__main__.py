"""``python -m benchmarks [NAME] [ARGUMENT …]``: run one benchmark; ``list`` lists them all.

Without a name: those that compare the service with other programs, in ten minutes; with arguments only the first of
them. ``all``: each whose result is in ``docs/performance.md``.

A benchmark is a module of this package with a ``main(argv)``; the list shows the first line of its docstring.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final

import benchmarks

_DEFAULT: Final = ("challenges", "modes", "latency")
_ALL: Final = (*_DEFAULT, "profile", "instructions", "growth", "stalls", "start", "sizing", "workers", "metrics")


def discover() -> dict[str, ModuleType]:
    """Return the modules of this package that have a ``main``."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "main")}


def chosen(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of the benchmarks that ``argv`` requests, and their arguments."""
    match argv:
        case []:
            return _DEFAULT, ()
        case ["all", *arguments]:
            return _ALL, arguments
        case [name, *arguments] if not name.startswith("-"):
            return (name,), arguments
    return _DEFAULT[:1], argv


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks that ``argv`` names; return the exit status."""
    found = discover()
    names, arguments = chosen(argv)
    if all(name in found for name in names):
        runs: list[Callable[[Sequence[str]], int | None]] = [found[name].main for name in names]
        return max([run(arguments) or 0 for run in runs])
    for each, module in found.items():
        print(f"make bench ARGS={each:15} {(module.__doc__ or '').splitlines()[0]}")
    return 0 if names == ("list",) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
