"""Latency at half of the highest load of the service, beside the floor and Node at the same load.

The highest load is measured first, by wrk over 16 connections. Then all programs get half of it, in interleaved rounds,
from a generator that sends each request when it is due (``programs/paced.py`` says how it measures).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

from benchmarks.load import put_load
from benchmarks.pacing import put_paced_load
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, medians, paired
from benchmarks.site import open_site

_HIGHEST_SECONDS: Final = 4.0


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks latency", description=__doc__)
    add_options(parser, rounds=5, seconds=4.0)
    parser.add_argument("--rate", type=float, help="challenges a second; default: half of the highest load")
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    with open_site() as site:
        programs = [site.start_other("floor"), site.start_other("node"), site.start_signer("signer")]
        for program in programs:
            site.warm_up(program)
        rate = options.rate or put_load(site, programs[-1], _HIGHEST_SECONDS).rate / 2
        load = {each.name: partial(put_paced_load, site, each, rate=rate, seconds=seconds) for each in programs}
        samples = interleave(load, rounds)
    rows = [
        {"name": name, **asdict(medians(each)), "p99_ratio": paired(each, samples["floor"], "p99")}
        for name, each in samples.items()
    ]
    load_text = f"Half of the service's highest load: {rate:,.0f} challenges a second"
    how = f"{load_text}; medians of {rounds} rounds of {seconds:g} s"
    publish(options, how, {"latency": rows})
