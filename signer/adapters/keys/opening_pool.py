"""Threads that open keys, limited by cores and by memory.

A keystore of the usual strength needs half a second of CPU and 256 MB to open. scrypt releases the GIL, so threads use
all cores; a container that exceeds its memory limit is killed, so memory is limited too. All backends share one pool.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class OpeningPool:
    """Runs blocking work off the event loop.

    Attributes:
        memory_budget: how much memory all running work may use, in bytes.
        threads: how much work may run at once.
    """

    def __init__(self, *, memory_budget: int, threads: int) -> None:
        """Create the pool; threads start when they are needed.

        Args:
            memory_budget: in bytes.
            threads: 0 for one per core that this process may run on. A container's CPU quota is not considered.
        """
        self.memory_budget = memory_budget
        self.threads = threads or available_cores()
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="open-keys")
        self._in_use = 0
        self._changed = threading.Condition()

    async def run(self, work: Callable[[], _T], *, memory: int = 0) -> _T:
        """Run ``work`` on a thread when ``memory`` bytes of the budget are free, and return its result.

        If the caller is cancelled, work that has started continues and keeps its memory until it ends.

        Raises:
            ValueError: ``memory`` is more than the whole budget.
        """
        if memory > self.memory_budget:
            raise ValueError(f"{memory} bytes are more than the budget of {self.memory_budget}")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._within_budget, work, memory)

    def close(self) -> None:
        """Cancel work that has not started; running work is not waited for."""
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
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
