"""How many challenges a second a pod takes whose CPU limit is 500m or 1 core.

Only the service has the limit: Redis, the card API and the load run beside it without one. The highest load is what
wrk gets over 16 connections. When the process has used its share of a period of 100 ms, Linux stops it until the next
period, so near the highest load some requests wait that long: plan with 60 % of it. The latencies are those at that
load, from a generator that sends each request when it is due.

Without cgroups (which need root on Linux) the figures are derived from the CPU seconds of one challenge.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.cpu_limit import limited
from benchmarks.load import put_load
from benchmarks.pacing import put_paced_load
from benchmarks.processes import stopping
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import medians
from benchmarks.site import Site, open_site

LIMITS: Final = {"500m": 0.5, "1": 1.0}
HEADROOM: Final = 0.6


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sizing", description=__doc__)
    add_options(parser, rounds=5, seconds=4.0)
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    with open_site() as site:
        rows = [_measure(site, name, rounds, seconds) for name in LIMITS]
    how = (
        f"Medians of {rounds} rounds of {seconds:g} s; one process a pod; plan with {HEADROOM:.0%} of the highest load"
    )
    publish(options, how, {"sizing": rows})


def _measure(site: Site, name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the row of one limit."""
    cores = LIMITS[name]
    program = site.warm_up(site.start_signer(name))
    with limited(program.process.pid, cores) as is_limited, stopping(program.process):
        samples = [put_load(site, program, seconds) for _ in range(rounds)]
        if not is_limited:
            how = "derived from the CPU of one challenge"
            return {"name": name, "how": how, **derived(medians(samples).cpu, cores)}
        highest = medians(samples).rate
        rate = highest * HEADROOM
        planned = medians([put_paced_load(site, program, rate=rate, seconds=seconds, seed=n) for n in range(rounds)])
    return {"name": name, "how": "measured under the limit", **asdict(planned), "highest": highest, "rate": rate}


def derived(cpu: float, cores: float) -> dict[str, float]:
    """Return the highest and the planned load for so many µs of CPU per challenge."""
    highest = cores * 1e6 / cpu
    return {"highest": highest, "rate": highest * HEADROOM}
