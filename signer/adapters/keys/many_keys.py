"""Work on 100,000 keys without stopping the event loop.

The event loop's thread runs between two steps of Python only. One call that works on all keys is one step, also if
another thread makes it, and so is a garbage collection that visits all keys.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from heapq import merge
from typing import Final

FREEZE_EVERY: Final = 2000
"""New keys between two calls of ``freeze``; a key is two or three objects."""

_STEP: Final = 1000  # keys; sorting them takes less than a millisecond


def sorted_in_steps(texts: Iterable[str]) -> Iterable[str]:
    """Return the texts in order, sorted in small parts."""
    unsorted = list(texts)
    return merge(*(sorted(unsorted[start : start + _STEP]) for start in range(0, len(unsorted), _STEP)))


def free_in_steps(objects: list[object]) -> None:
    """Drop the references one by one."""
    while objects:
        objects.pop()


def freeze() -> None:
    """Let later garbage collections leave out all objects that exist now.

    Objects of running requests are among them, and some of these become garbage that is never collected. So call this
    for many new keys only, which need far more memory.
    """
    gc.collect()  # of what came after the last call
    gc.freeze()
