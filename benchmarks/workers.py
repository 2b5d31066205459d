"""One, two and four workers of one service, compared with one worker.

wrk, Redis and the card API need CPU of the same cores. So each worker has a CPU limit, low enough to leave them theirs:
then more workers find free cores, as on a larger machine. Without cgroups (which need root on Linux) there is no limit,
and two workers on two cores cannot double the throughput of one. As many services as there are numbers of workers run
at the same time and take turns (``rounds``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Final

from benchmarks.cpu_limit import limited
from benchmarks.load import CONNECTIONS, put_load
from benchmarks.processes import resident_mib, tree
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, medians, paired
from benchmarks.site import Variant, open_site

_WORKERS: Final = (1, 2, 4)
_OPTION: Final = "--workers"
_CORES_FOR_EACH: Final = 0.3


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks workers", description=__doc__)
    add_options(parser, rounds=6, seconds=4.0)
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    with ExitStack() as limits, open_site() as site:
        programs = {
            str(count): site.warm_up(site.start_signer(f"{count}-workers", Variant(arguments=(_OPTION, str(count)))))
            for count in _WORKERS
        }
        # A supervisor needs no CPU, and has no limit.
        workers = [pid for name, each in programs.items() for pid in list(tree(each.process.pid))[-int(name) :]]
        is_limited = [limits.enter_context(limited(pid, _CORES_FOR_EACH)) for pid in workers]
        turns = {
            name: partial(put_load, site, program, seconds, connections=CONNECTIONS * int(name))
            for name, program in programs.items()
        }
        samples = interleave(turns, rounds)
        # The supervisor is the smallest: it loads no keys and serves nothing.
        memory = {name: median(sorted(resident_mib(each.process.pid))[-int(name) :]) for name, each in programs.items()}
    one = samples["1"]
    rows = [
        {
            "name": name,
            **asdict(medians(each)),
            "memory": memory[name],
            "cpu_ratio": paired(each, one, "cpu"),
            "rate_ratio": paired(each, one, "rate"),
        }
        for name, each in samples.items()
    ]
    how = f"Medians of {rounds} rounds of {seconds:g} s, {CONNECTIONS} connections for each worker"
    limit = f"each worker limited to {_CORES_FOR_EACH:g} of a core" if all(is_limited) else "cores shared with the load"
    publish(options, f"{how}; {limit}", {"workers": rows})
