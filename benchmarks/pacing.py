"""Puts load on a program at a given rate (``programs/paced.py``), which a closed loop such as wrk's cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.load import Sample
from benchmarks.processes import Program, cpu_seconds
from benchmarks.site import Site
from signer.config.sections import OFFBLOCKS_STATEMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedSample(Sample):
    """A sample at a given rate.

    Attributes:
        count: how many requests there were.
        late: how late the generator sent its requests: the 99th percentile, in milliseconds.
    """

    count: int
    late: float


def put_paced_load(
    site: Site, program: Program, *, rate: float, seconds: float, seed: int = 1, patience: float = 10.0
) -> PacedSample:
    """Send ``rate`` requests a second; wait for the last responses, ``patience`` seconds at most.

    Raises:
        SystemExit: a request failed.
    """
    before = cpu_seconds(program.process.pid), cpu_seconds(program.redis)
    given = {
        "port": program.port,
        "rate": rate,
        "seconds": seconds,
        "seed": seed,
        "patience": patience,
        "owners": program.owners,
        "chain": site.chain,
        "domain": site.domain,
        "statement": OFFBLOCKS_STATEMENT,
        "token": site.token,
    }
    command = [sys.executable, "-m", "benchmarks.programs.paced", *(f"--{key}={value}" for key, value in given.items())]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result = json.loads(output)
    count = result.pop("count")
    if failed := result.pop("failed"):
        program.fail(f"{failed} of {count} requests failed")
    cpu, redis = cpu_seconds(program.process.pid) - before[0], cpu_seconds(program.redis) - before[1]
    return PacedSample(rate=count / seconds, cpu=cpu / count * 1e6, redis=redis / count * 1e6, count=count, **result)
