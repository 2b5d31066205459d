"""CPU per challenge with metrics on, and not requested meanwhile, compared with metrics off, in one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from benchmarks.load import CONNECTIONS, put_load
from benchmarks.processes import free_port
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, medians, paired
from benchmarks.site import Variant, open_site


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks metrics", description=__doc__)
    add_options(parser, rounds=30, seconds=2.0)
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    with open_site() as site:
        on = Variant(settings={"metrics": {"port": free_port()}})
        programs = [site.warm_up(site.start_signer("off")), site.warm_up(site.start_signer("on", on))]
        samples = interleave({each.name: partial(put_load, site, each, seconds) for each in programs}, rounds)
    rows = [
        {"name": name, **asdict(medians(each)), "cpu_ratio": paired(each, samples["off"], "cpu")}
        for name, each in samples.items()
    ]
    publish(options, f"Medians of {rounds} rounds of {seconds:g} s, {CONNECTIONS} connections", {"metrics": rows})
