"""Seconds from the start of the process until it is ready, and its memory, with one keystore and with 100,000 keys.

The keystore's key derivation costs next to nothing here. Ready is 200 from ``/readyz``, which is polled. Memory is the
resident set of the process: once it is ready, and after some thousand challenges.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, Final

from benchmarks.growth import start_with_keys
from benchmarks.load import put_load
from benchmarks.processes import Program, resident_mib, stop
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import Ratio
from benchmarks.site import Site, open_site

_KEYS: Final = 100_000


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    add_options(parser, rounds=5, seconds=3.0)
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    with open_site() as site:
        starts: Mapping[str, Callable[[], Program]] = {
            "one keystore": partial(site.start_signer, "one"),
            f"HD seed, {_KEYS:,} keys": partial(start_with_keys, site, "many", _KEYS),
            "floor, for comparison": partial(site.start_other, "floor"),
        }
        rows = [_measure(site, name, start, rounds, seconds) for name, start in starts.items()]
    publish(options, f"Medians of {rounds} starts; the load is {seconds:g} s over 16 connections", {"start": rows})


def _measure(site: Site, name: str, start: Callable[[], Program], rounds: int, seconds: float) -> dict[str, Any]:
    """Return the row of one kind of start."""
    took, idle, loaded = [], [], []
    for _ in range(rounds):
        program = start()
        took.append(program.start)
        idle.append(sum(resident_mib(program.process.pid)))
        put_load(site, program, seconds)
        loaded.append(sum(resident_mib(program.process.pid)))
        stop(program.process)
    seconds_to_ready = Ratio(median(took), min(took), max(took))
    return {"name": name, "seconds": seconds_to_ready, "idle": median(idle), "loaded": median(loaded)}
