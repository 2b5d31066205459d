"""Counts, with valgrind, the instructions of the service and of the floor for one challenge, to less than 1 %.

A program that runs under valgrind is about thirty times slower, but other work on the machine hardly changes what is
counted: measure a change with ``--baseline``. In each round a program gets all challenges, over 64 connections, and the
count ends after the last response. Code of the kernel is not counted, and an instruction that waits for memory counts
as one, like any other, so the ratio is not that of the CPU time.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.pacing import put_paced_load
from benchmarks.processes import Program
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, ratio
from benchmarks.site import Site, Variant, open_site

_CHALLENGES: Final = 500
_DUE_WITHIN_SECONDS: Final = 0.001
_PATIENCE_SECONDS: Final = 300.0
_COUNTER: Final = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
_TOTAL: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks instructions", description=__doc__)
    add_options(parser, rounds=3)
    parser.add_argument("--baseline", type=Path, help="another checkout of this project, whose service takes part, too")
    options = parser.parse_args(argv)
    rounds = 1 if options.quick and not options.rounds else length_of(options)[0]
    if shutil.which(_COUNTER[0]) is None:
        sys.exit("valgrind is missing: install the Debian package valgrind")
    with open_site() as site:
        programs = [_start(site, "floor"), _start(site, "signer")]
        if options.baseline is not None:
            programs.append(_start(site, "baseline", options.baseline))
        for each in programs:
            site.warm_up(each.program)
        counts = interleave({each.program.name: partial(each.count, site) for each in programs}, rounds)
    rows = [
        {"name": name, "instructions": median(each) / 1e3, "ratio": ratio(each, counts["floor"])}
        for name, each in counts.items()
    ]
    publish(options, f"Medians of {rounds} rounds of about {_CHALLENGES} challenges", {"instructions": rows})
    if "baseline" in counts:
        print(f"ratio instructions signer/baseline = {ratio(counts['signer'], counts['baseline']):.3f}")


@dataclass(frozen=True, slots=True)
class _Counted:
    """A program under valgrind, and the file that its counts are written to."""

    program: Program
    file: Path

    def count(self, site: Site) -> float:
        """Return the instructions for one challenge."""
        rate = _CHALLENGES / _DUE_WITHIN_SECONDS
        self._control("--instr=on")
        sample = put_paced_load(site, self.program, rate=rate, seconds=_DUE_WITHIN_SECONDS, patience=_PATIENCE_SECONDS)
        self._control("--instr=off")
        self._control("--dump")
        dumps = sorted(self.file.parent.glob(f"{self.file.name}.*"), key=lambda dump: dump.stat().st_mtime_ns)
        total = _TOTAL.search(dumps[-1].read_text())
        if total is None:
            self.program.fail("valgrind counted nothing")
        return int(total[1]) / sample.count

    def _control(self, command: str) -> None:
        subprocess.run(["callgrind_control", command, str(self.program.process.pid)], capture_output=True, check=True)


def _start(site: Site, name: str, checkout: Path | None = None) -> _Counted:
    file = site.folder / f"{name}.callgrind"
    runner = (*_COUNTER, f"--callgrind-out-file={file}")
    if name == "floor":
        return _Counted(site.start_other(name, runner), file)
    return _Counted(site.start_signer(name, Variant(checkout=checkout, runner=runner)), file)
