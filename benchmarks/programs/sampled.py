"""The service under a sampling profiler: where its event loop's thread uses CPU; the product itself is unchanged.

``python -m benchmarks.programs.sampled serve …`` takes the arguments of ``signer``. Each few ms of CPU time a signal
interrupts the thread, and the files of its Python frames are counted, the innermost first. SIGUSR1 forgets what was
counted before (the start); at its end the process writes the counts to the file that ``BENCH_SAMPLES`` names, as JSON.
Python handles a signal between two bytecodes: C code counts for the Python function that called it, or runs next.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from signer.cli.main import main

INTERVAL = 0.004
"""The kernel's timers of CPU time are not finer."""

_counts: Counter[tuple[str, ...]] = Counter()


def _count(_number: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        stack.append(frame.f_code.co_filename)
        frame = frame.f_back
    _counts[tuple(stack)] += 1


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _count)
    signal.signal(signal.SIGUSR1, lambda _number, _frame: _counts.clear())
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        main()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        samples = [{"count": count, "files": files} for files, count in _counts.items()]
        Path(os.environ["BENCH_SAMPLES"]).write_text(json.dumps(samples))
        sys.stdout.flush()
