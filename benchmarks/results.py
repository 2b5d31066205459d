"""Where results go: the terminal and, unless the run is a quick one, JSON, the plot and ``docs/performance.md``.

``benchmarks/results/latest.json`` is committed: the page and the plot are made from it, and a test compares them. It
has what the page shows; a file that ``--json`` names has all figures and samples. Each section says when, on which
commit and on which machine it was measured.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.page import LATEST, load_result, write_page
from benchmarks.sections import SECTIONS
from benchmarks.tables import as_text
from signer.devsite.embedded_valkey import find_binary

_LOAD_BEFORE: Final = os.getloadavg()[0]
_VERSION: Final = re.compile(r"[0-9]+[.][0-9]+[.][0-9]+")
ROOT: Final = Path(__file__).parents[1]


def add_options(parser: argparse.ArgumentParser, *, rounds: int = 0, seconds: float = 0.0) -> None:
    """Add the options that all benchmarks of the service have; the defaults are those of the published figures.

    A benchmark that has no rounds, or does not measure for a time, does not have that option.
    """
    parser.add_argument("--quick", action="store_true", help="short rounds, nothing is written")
    if rounds:
        parser.add_argument("--rounds", type=int, help=f"default: {rounds}")
    if seconds:
        parser.add_argument("--seconds", type=float, help=f"of each program in each round; default: {seconds:g}")
    parser.add_argument("--json", type=Path, help="write all figures here, and nothing to the page")
    parser.set_defaults(default_rounds=rounds, default_seconds=seconds, default_of=parser.get_default)


def length_of(options: argparse.Namespace) -> tuple[int, float]:
    """Return the number of rounds, and the seconds of each; 0 for what the benchmark does not have."""
    most = (3, 3.0) if options.quick else (sys.maxsize, sys.maxsize)
    return (
        getattr(options, "rounds", None) or min(most[0], options.default_rounds),
        getattr(options, "seconds", None) or min(most[1], options.default_seconds),
    )


def publish(options: argparse.Namespace, how: str, sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print the tables of some sections and write them.

    Args:
        options: from ``add_options``. The page gets only a run without options.
        how: what was measured, for the page.
        sections: the rows of each.
    """
    for name, rows in sections.items():
        print(as_text(SECTIONS[name].columns, _plain(list(rows))), end="\n\n", flush=True)
    is_published = all(value == options.default_of(option) for option, value in vars(options).items())
    target: Path | None = options.json or (LATEST if is_published else None)
    if target is None:
        return
    result = load_result(target)
    for name, rows in sections.items():
        shown = {column.key for column in SECTIONS[name].columns}
        kept = [{key: value for key, value in row.items() if key in shown or target != LATEST} for row in rows]
        result[name] = {"measured": _circumstances(), "how": how, "rows": _plain(kept)}
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"written to {os.path.relpath(target)}")
    if target == LATEST:
        write_page()


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that a row holds
    """Return what JSON can hold, with numbers as exact as they can be measured."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


def _circumstances() -> dict[str, Any]:
    """Return when, on which commit, and on what machine this is measured."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {_cpu_model()}, Linux {platform.release().partition('-')[0]}",
        "versions": ", ".join(_versions()),
        "load": round(_LOAD_BEFORE, 1),
    }


def is_optimized_build() -> bool:
    """Return whether Python was built with profile-guided optimization, as the image's and distributions' are."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" in options or sys.base_prefix == "/usr"


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}" + ("" if is_optimized_build() else " built without optimization")
    for name, command in (("Valkey", str(find_binary())), ("Node", "node")):
        if shutil.which(command):
            text = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
            version = _VERSION.search(text)
            yield f"{name} {version[0] if version else '?'}"


def _commit() -> str:
    """Return the commit, and whether what is measured differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "signer", "locks", "benchmarks/programs"], check=False
    )
    return head.stdout.strip() + (", changed" if changed.returncode else "")


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
