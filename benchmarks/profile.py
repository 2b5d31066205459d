"""Where the service's CPU goes, by part: a sampling profiler in the process while wrk puts load on it.

A sample counts for the innermost frame whose file belongs to a part; the standard library counts for its caller, and C
code for the Python function that called it or runs next. So a part includes its hashing, and the sockets that it writes
to; reading from sockets counts for the part that gets the data. The thread that writes the log counts for what the main
thread does meanwhile.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.load import put_load
from benchmarks.processes import stop
from benchmarks.results import add_options, length_of, publish
from benchmarks.site import Variant, open_site

PARTS: Final = {
    "signer/observability": "log lines",
    "structlog": "log lines",
    "signer/adapters/redis_store": "Redis store: scripts, parsing records",
    "signer/adapters/redis_client": "Redis client",
    "site-packages/redis": "Redis client",
    "signer/adapters/request_signing": "request signature (P-384)",
    "awscrt": "request signature (P-384)",
    "signer/adapters/keys": "challenge signature (secp256k1)",
    "coincurve": "challenge signature (secp256k1)",
    "signer/adapters/card_api": "card API client",
    "aiohttp/client": "HTTP client (aiohttp)",
    "aiohttp/connector": "HTTP client (aiohttp)",
    "aiohttp/tracing": "HTTP client (aiohttp)",
    "aiohttp/cookiejar": "HTTP client (aiohttp)",
    "aiohttp/web": "HTTP server (aiohttp)",
    "signer/web": "API: authentication, bodies, responses",
    "signer/application": "use cases",
    "signer/domain": "domain: parser, policy, records",
}
"""The part of each file, by a text that its path contains; the first match counts."""

LOOP: Final = "event loop"


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    add_options(parser, seconds=20.0)
    options = parser.parse_args(argv)
    _, seconds = length_of(options)
    with open_site() as site:
        file = site.folder / "samples.json"
        variant = Variant(module="benchmarks.programs.sampled", environment={"BENCH_SAMPLES": str(file)})
        program = site.warm_up(site.start_signer("signer", variant))
        program.process.send_signal(signal.SIGUSR1)
        put_load(site, program, seconds)
        stop(program.process)
        shares = shares_of(json.loads(file.read_text("utf-8")))
        count = sum(each["count"] for each in json.loads(file.read_text("utf-8")))
    rows = [{"name": part, "share": share} for part, share in sorted(shares.items(), key=lambda each: -each[1])]
    publish(options, f"{count:,} samples in {seconds:g} s", {"profile": rows})


def shares_of(samples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of each part."""
    counts: Counter[str] = Counter()
    for sample in samples:
        counts[part_of(sample["files"])] += sample["count"]
    return {part: count / counts.total() for part, count in counts.items()}


def part_of(files: Sequence[str]) -> str:
    """Return the part of a stack, whose innermost file is first."""
    for file in files:
        for text, part in PARTS.items():
            if text in file:
                return part
    return LOOP
