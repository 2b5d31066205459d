"""The service with a timer in its event loop that notes each stall; the product itself is unchanged.

``python -m benchmarks.programs.watched serve …`` takes the arguments of ``signer``, for one process. ``BENCH_STALLS``
names the file to which it writes one line for each turn of the timer that was more than 1 ms late: the moment on the
monotonic clock, the delay and the CPU time that the loop's thread used in this turn, in seconds, and the number of
turns since the last line, this one included. A delay without CPU time is a wait for a core or for the interpreter's
lock.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TextIO

import uvloop

from signer.cli.main import main

INTERVAL = 0.001
_LATE = 0.001
"""Shorter delays are not written: uvloop's timers count milliseconds."""


class Watch:
    """A timer that runs for as long as its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: TextIO) -> None:
        """Start it."""
        self._loop = loop
        self._file = file
        self._turns = 0
        self._at, self._cpu = time.monotonic(), time.thread_time()
        loop.call_later(INTERVAL, self._tick)

    def _tick(self) -> None:
        now, cpu = time.monotonic(), time.thread_time()
        late = now - self._at - INTERVAL
        self._turns += 1
        if late > _LATE:
            self._file.write(f"{now:.6f} {late:.6f} {cpu - self._cpu:.6f} {self._turns}\n")
            self._turns = 0
        self._at, self._cpu = time.monotonic(), time.thread_time()
        self._loop.call_later(INTERVAL, self._tick)


_new_event_loop = uvloop.new_event_loop


def _new_watched_loop() -> uvloop.Loop:
    loop = _new_event_loop()
    Watch(loop, Path(os.environ["BENCH_STALLS"]).open("a", buffering=1))  # noqa: SIM115 - as long as the process
    return loop


if __name__ == "__main__":
    uvloop.new_event_loop = _new_watched_loop
    main()
