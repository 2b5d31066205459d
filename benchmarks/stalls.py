"""The longest stall of the event loop: under load, while 100,000 keys load, and while they are exchanged under load.

The service runs with a timer of one millisecond in its event loop (``programs/watched.py``); a stall is how late the
timer is. On a busy machine a stall is also the wait for a core, so the CPU time that the loop's thread used within the
whole turn stands beside it: the loop did that much work without a pause. It can exceed the delay by the millisecond.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks.load import CONNECTIONS, put_load
from benchmarks.processes import Program, stopping
from benchmarks.programs.paced import percentile
from benchmarks.results import add_options, length_of, publish
from benchmarks.site import Site, Variant, open_site
from signer.adapters.keys.hd.backend import write_seed

_KEYS: Final = 100_000
_POLL_SECONDS: Final = 0.5
_SLICE_SECONDS: Final = 2.0


class Stalls:
    """The stalls of one service, which it writes to a file."""

    def __init__(self, site: Site, name: str) -> None:
        """Choose the file."""
        self._file: Final = site.folder / f"{name}.stalls"
        self._since = time.monotonic()
        self.environment: Final = {"BENCH_STALLS": str(self._file)}

    def row(self, name: str) -> dict[str, Any]:
        """Return the row of the time since the last row."""
        now = time.monotonic()
        stalls = stalls_between(self._file.read_text("utf-8"), self._since, now)
        seconds, self._since = now - self._since, now
        longest = {"longest": max((late for late, _, _ in stalls), default=0.0) * 1e3}
        busy = {"busy": max((cpu for _, cpu, _ in stalls), default=0.0) * 1e3}
        on_time = [0.0] * sum(turns - 1 for _, _, turns in stalls)
        delays = [*on_time, *(late for late, _, _ in stalls)] or [0.0]
        return {"name": name, "seconds": seconds, **longest, **busy, "p999": percentile(delays, 0.999) * 1e3}


def stalls_between(lines: str, since: float, until: float) -> list[tuple[float, float, int]]:
    """Return delay, CPU time and turns of each stall that ended in between; the last line may be incomplete."""
    complete = lines[: lines.rfind("\n") + 1].splitlines()
    numbers = (tuple(map(float, line.split())) for line in complete)
    return [(late, cpu, int(turns)) for moment, late, cpu, turns in numbers if since <= moment <= until]


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks stalls", description=__doc__)
    add_options(parser, seconds=10.0)
    options = parser.parse_args(argv)
    _, seconds = length_of(options)
    with open_site() as site:
        rows = [*_one_key(site, seconds), *_many_keys(site, seconds)]
    publish(
        options,
        f"A timer of 1 ms in the event loop; {seconds:g} s of load over {CONNECTIONS} connections",
        {"stalls": rows},
    )


def _one_key(site: Site, seconds: float) -> Iterator[dict[str, Any]]:
    stalls = Stalls(site, "one-key")
    program = _start(site, stalls, [])
    with stopping(program.process):
        yield stalls.row("start, one key")
        put_load(site, program, seconds)
        yield stalls.row("load, one key")


def _many_keys(site: Site, seconds: float) -> Iterator[dict[str, Any]]:
    seed = site.folder / "seed.json"
    _write_seed(seed, 1)
    stalls = Stalls(site, "many-keys")
    uri = f"hd:{seed}?password_file={site.folder / 'password'}&indexes=0-{_KEYS - 1}"
    program = _start(site, stalls, [uri])
    yield stalls.row(f"start, {_KEYS:,} keys")
    put_load(site, program, seconds)
    yield stalls.row(f"load, {_KEYS:,} keys")
    _write_seed(seed, 2)
    with ThreadPoolExecutor() as pool:
        reload = pool.submit(_reload, program)
        while not reload.done():
            put_load(site, program, _SLICE_SECONDS)
        reload.result()
    yield stalls.row(f"load, all {_KEYS:,} keys exchanged")


def _start(site: Site, stalls: Stalls, uris: Sequence[str]) -> Program:
    settings = {"keys": {"uris": [site.key_uri, *uris], "watch_every": 0}}
    module, environment = "benchmarks.programs.watched", stalls.environment
    return site.start_signer(
        f"{len(uris) + 1}-uris", Variant(settings=settings, module=module, environment=environment)
    )


def _reload(program: Program) -> None:
    """Reload the keys, and wait until the log has the result: so the measurement adds no request."""
    with program.log.open("rb") as log:
        log.seek(0, os.SEEK_END)
        program.process.send_signal(signal.SIGHUP)
        found: list[bytes] = []
        incomplete = b""
        while not found:
            if program.process.poll() is not None:
                program.fail("the service ended")
            time.sleep(_POLL_SECONDS)
            *lines, incomplete = (incomplete + log.read()).split(b"\n")
            found = [line for line in lines if b'"keys.reload' in line]
    result = json.loads(found[0])
    if result.get("failed", 1) or not result["added"]:
        program.fail("the reload exchanged no keys")


def _write_seed(file: Path, number: int) -> None:
    """Write a seed in one step, as an operator would replace the file."""
    temporary = file.with_suffix(".new")
    write_seed(temporary, number.to_bytes(64), b"bench", work=2)
    temporary.replace(file)
