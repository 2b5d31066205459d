"""The threads that open keys, bounded by cores and by memory.

A keystore of the usual strength takes half a second of CPU and 256 MB to open. scrypt lets go of the GIL, so threads
use all cores; and a pod's memory limit knows no mercy, so what is under way at once is bounded by memory too. One pool
serves all backends of the process, and the bound holds for all of them together.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

MEMORY_BUDGET: Final = 1024**3
"""The default bound on the memory of all openings under way, in bytes."""

_T = TypeVar("_T")


class OpeningPool:
    """Runs blocking work off the event loop.

    Attributes:
        memory_budget: the bound, in bytes.
        threads: how many pieces of work run at once, where memory allows it.
    """

    def __init__(self, *, memory_budget: int = MEMORY_BUDGET, threads: int | None = None) -> None:
        """Make the pool; threads start as they are needed.

        Args:
            memory_budget: bytes.
            threads: ``None`` for one per core that this process may run on. A container's CPU quota is not a core less:
                set it where the quota is smaller.
        """
        self.memory_budget = memory_budget
        self.threads = threads if threads is not None else available_cores()
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="open-keys")
        self._in_use = 0
        self._changed = threading.Condition()

    async def run(self, work: Callable[[], _T], *, memory: int = 0) -> _T:
        """Have ``work`` done on a thread, once ``memory`` bytes of the budget are free.

        Work that has begun when the caller is cancelled goes on to its end and keeps its memory until then.

        Raises:
            ValueError: ``memory`` is more than the whole budget.
        """
        if memory > self.memory_budget:
            raise ValueError(f"{memory} bytes are more than the budget of {self.memory_budget}")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._within_budget, work, memory)

    def close(self) -> None:
        """Take no more work and drop what has not begun; does not wait for what has."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _within_budget(self, work: Callable[[], _T], memory: int) -> _T:
        with self._changed:
            self._changed.wait_for(lambda: self._in_use + memory <= self.memory_budget)
            self._in_use += memory
        try:
            return work()
        finally:
            with self._changed:
                self._in_use -= memory
                self._changed.notify_all()


def available_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
