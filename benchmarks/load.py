"""Puts load on a program with wrk, and returns what the program did: challenges a second, CPU, latency."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from benchmarks.processes import Program, cpu_seconds
from signer.config.sections import OFFBLOCKS_STATEMENT

if TYPE_CHECKING:
    from benchmarks.site import Site

CONNECTIONS: Final = 16
WARM_UP_SECONDS: Final = 1.0


class Request(StrEnum):
    """What is requested, for a customer of its own each time."""

    FORWARD = "forward"
    """Sign the given challenge, and deliver the signature."""

    SIGN = "sign"
    """Sign the given challenge only (``forward: false``)."""

    FETCH = "fetch"
    """Fetch the challenge from the card API, sign, deliver."""

    ONBOARD = "onboard"
    """Create the customer at the card API, sign its challenge, deliver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one program did in one round.

    Attributes:
        rate: challenges a second.
        cpu: µs of CPU per challenge of the program and its child processes.
        redis: µs of CPU per challenge of its Redis.
        p50, p99, p999: latency in milliseconds.
    """

    rate: float
    cpu: float
    redis: float
    p50: float
    p99: float
    p999: float


def put_load(
    site: Site,
    program: Program,
    seconds: float,
    *,
    request: Request = Request.FORWARD,
    connections: int = CONNECTIONS,
) -> Sample:
    """Send requests over ``connections`` connections, each as soon as the one before it has its response.

    Raises:
        SystemExit: a request failed, or none was completed.
    """
    before = cpu_seconds(program.process.pid), cpu_seconds(program.redis)
    output = subprocess.run(
        [
            shutil.which("wrk") or "wrk",
            *("-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(site.programs / "load.lua")),
            f"http://127.0.0.1:{program.port}",
            *("--", str(program.owners), str(site.chain), site.domain, OFFBLOCKS_STATEMENT, site.token),
            *(secrets.token_hex(6), request),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    result = json.loads(output.strip().splitlines()[-1])
    count = result["count"]
    if result["failed"] or not count:
        program.fail(f"{result['failed']} requests failed, {count} were completed")
    cpu = cpu_seconds(program.process.pid) - before[0]
    redis = cpu_seconds(program.redis) - before[1]
    return Sample(
        rate=count / result["seconds"],
        cpu=cpu / count * 1e6,
        redis=redis / count * 1e6,
        p50=result["p50"],
        p99=result["p99"],
        p999=result["p999"],
    )
