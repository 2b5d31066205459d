"""A bar on standard error while keys are being opened, for a person at a terminal; nobody else sees anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

KeysDone = Callable[[int, int], None]


@contextmanager
def key_progress(*, wanted: bool = True) -> Iterator[KeysDone]:
    """Give what hears of keys that have been dealt with, and show them as a bar that is gone at the end.

    Args:
        wanted: ``False`` for no bar in any case. Where standard error is no terminal, there is none either.
    """
    if not (wanted and sys.stderr.isatty()):
        yield _unseen
        return
    columns = (
        TextColumn("opening keys"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("keys", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def _unseen(_done: int, _total: int) -> None:
    return
