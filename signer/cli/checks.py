"""Run checks of files and servers, and end the process although one of them hangs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn, TypeVar

_Result = TypeVar("_Result")
_THREADS: Final = "checks"
_END_WITHIN: Final = 0.5


def run_checks_and_exit(checks: Coroutine[Any, Any, tuple[_Result, bool]], show: Callable[[_Result], int]) -> NoReturn:
    """Run checks, print their result, and end the process.

    ``asyncio.run`` and the interpreter's exit would wait for a thread that hangs, for example in DNS or in a file.

    Args:
        checks: returns the result, and whether a thread may hang. Threads of the event loop's executor are noticed
            without it.
        show: prints the result and returns the exit status.
    """
    executor = ThreadPoolExecutor(thread_name_prefix=_THREADS)
    runner = asyncio.Runner()
    runner.get_loop().set_default_executor(executor)
    result, hangs = runner.run(checks)
    status = show(result)
    executor.shutdown(wait=False)
    if hangs or _any_thread_hangs():
        sys.stdout.flush()
        os._exit(status)
    runner.close()
    sys.exit(status)


def _any_thread_hangs() -> bool:
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_THREADS)]
    for thread in threads:
        thread.join(_END_WITHIN)
    return any(thread.is_alive() for thread in threads)
