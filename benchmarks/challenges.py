"""Challenges a second and CPU per challenge of the service, beside the floor and beside other programs; [--quick].

Each program gets fresh challenges on ``POST …/challenge/sign`` from wrk, claims the nonce in the same Valkey, signs,
and delivers to the same card API, which costs next to nothing; all are processes of their own. ``rounds`` says how the
ratios are measured.

* floor: only the work that no program can avoid, with redis-py's pool; ``floor-shared``: with one connection to Redis.
* documented: the same by the libraries' documented calls. node: the same by well-known packages of npm.
* signer: this service with production settings: authentication, policy, leases, recovery, JSON log lines to a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.load import CONNECTIONS, Sample, put_load
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, medians, paired
from benchmarks.site import Variant, open_site

_OTHERS: Final = ("floor", "floor-shared", "documented", "node")
_SIGNER: Final = "signer"
_BASELINE: Final = "baseline"
"""The service of another checkout, to measure a change."""


def measure(rounds: int, seconds: float, names: Sequence[str], baseline: Path | None = None) -> dict[str, list[Sample]]:
    """Return the samples of each program, one for each round."""
    with open_site() as site:
        programs = [site.start_other(name) if name in _OTHERS else site.start_signer(name) for name in names]
        if baseline is not None:
            programs.append(site.start_signer(_BASELINE, Variant(checkout=baseline)))
        for program in programs:
            site.warm_up(program)
        return interleave({each.name: partial(put_load, site, each, seconds) for each in programs}, rounds)


def main(argv: Sequence[str]) -> None:
    """Measure, print the tables and the ratios, and publish them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks challenges", description=__doc__)
    add_options(parser, rounds=8, seconds=5.0)
    programs = (*_OTHERS, _SIGNER)
    parser.add_argument("--only", nargs="*", default=programs, choices=programs, help="the programs to compare")
    parser.add_argument("--baseline", type=Path, help="another checkout of this project, whose service takes part, too")
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    samples = measure(rounds, seconds, options.only, options.baseline)
    ours = samples.get(_SIGNER, [])
    ratios = {
        name: {"cpu_ratio": paired(ours, theirs, "cpu"), "rate_ratio": paired(ours, theirs, "rate")}
        for name, theirs in samples.items()
        if ours and name != _SIGNER
    }
    sections = {
        "programs": [{"name": name, **asdict(medians(each)), "samples": each} for name, each in samples.items()],
        "ratios": [{"name": name, **each} for name, each in ratios.items()],
    }
    publish(options, f"Medians of {rounds} rounds of {seconds:g} s, {CONNECTIONS} connections", sections)
    for figure, label in (("cpu_ratio", "cpu_per_challenge"), ("rate_ratio", "throughput")):
        for name, each in ratios.items():
            print(f"ratio {label} signer/{name} = {each[figure]}")
