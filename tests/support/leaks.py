"""A pytest plugin that fails each test, at its own end, for what it leaves open.

Without it, the garbage collector closes a forgotten connection during a later test, and that test fails. After a test
and its fixtures are finished, none of these may be left:

* a pending task or an open async generator, when its event loop is closed;
* a file descriptor (sockets, pipes, files), a thread, or a child process that the test started;
* garbage that warns or raises when it is collected, such as an unclosed ``aiohttp.ClientSession``;
* an error that asyncio logs, such as a task whose exception no code has seen.

What a fixture of a wider scope opens belongs to that fixture, and may stay open as long as it lives.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

_FDS: Final = Path("/proc/self/fd")
_FORGOTTEN_BY_AIOHTTP: Final = {"RequestHandler.start", "RequestHandler._handle_request"}
"""An aiohttp server that shuts down does not end the handler of a request whose client is gone."""

_GRACE_SECONDS: Final = 2.0
_LOOP_TURNS: Final = 10
_POLL_SECONDS: Final = 0.002

_YOUNG, _ALL = 1, 2
"""Generations: the objects since the last collection of this kind, or all of them, which takes ten times as long."""

_NEVER: Final = 1_000_000
_CHILD: Final = "child process "


_shared: Counter[str] = Counter()


@contextmanager
def shared_by_tests() -> Iterator[None]:
    """Open something that several tests use, outside of a fixture of a wider scope."""
    before = open_resources()
    yield
    _shared.update(open_resources() - before - _shared)


def open_resources() -> Counter[str]:
    """Return the descriptors, threads and child processes of this process, each with the number of times."""
    return Counter([*_descriptors(), *_threads(), *_child_processes()])


class LeakGuard:
    """Compares what is open after a test with what was open before it."""

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()
        self._failures = 0
        self._findings: list[str] = []
        self._close_runner = asyncio.Runner.close
        self._loops = 0
        self._asyncio_errors = _Errors()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Check each event loop before it is closed."""
        config.addinivalue_line("markers", "asyncio_errors: makes asyncio log errors, on purpose")
        logging.getLogger("asyncio").addHandler(self._asyncio_errors)
        close_runner = self._close_runner

        def close(runner: asyncio.Runner) -> None:
            self._loops += 1
            self._findings += _unfinished(runner)
            close_runner(runner)

        asyncio.Runner.close = close  # type: ignore[assignment,method-assign]

    def pytest_unconfigure(self) -> None:
        """Undo that."""
        logging.getLogger("asyncio").removeHandler(self._asyncio_errors)
        asyncio.Runner.close = self._close_runner  # type: ignore[method-assign]

    def pytest_collection_finish(self) -> None:
        """Leave all modules out of later garbage collections; let what a test creates stay young until its end."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(gc.get_threshold()[0], _NEVER)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Remember what is open before the test."""
        if item.session.testsfailed != self._failures:
            _collect_garbage()  # of the test that failed: it is not this one's
        self._before = open_resources()
        _shared.clear()
        self._findings.clear()
        self._asyncio_errors.messages.clear()
        self._failures = item.session.testsfailed
        self._loops = 0
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Remember what a fixture of a wider scope opens."""
        if fixturedef.scope == "function":
            return (yield)
        with shared_by_tests():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        """Fail the test for what it leaves; but not if it failed already, because its traceback keeps objects alive."""
        result = yield
        getattr(item, "funcargs", {}).clear()  # what fixtures returned is garbage of this test, not of the next one
        if item.session.testsfailed == self._failures:
            is_last_of_module = nextitem is None or nextitem.path != item.path
            if is_last_of_module or open_resources() - self._before - _shared:
                self._findings += _collect_garbage()
            elif self._loops:
                self._findings += _collect_garbage(_YOUNG)
            left = self._still_open()
            self._findings += [
                f"still open: {_with_command(name)}" + f" ({count} times)" * (count > 1) for name, count in left.items()
            ]
            if not item.get_closest_marker("asyncio_errors"):
                self._findings += self._asyncio_errors.messages
            if self._findings:
                pytest.fail("The test left something behind:\n" + "\n".join(self._findings), pytrace=False)
        return result

    def _still_open(self) -> Counter[str]:
        """Return what is open beyond what was; wait for threads that are about to end."""
        ends = time.monotonic() + _GRACE_SECONDS
        while True:
            left = open_resources() - self._before - _shared
            if time.monotonic() > ends or not any(name.startswith("thread ") for name in left):
                return left
            time.sleep(_POLL_SECONDS)


class _Errors(logging.Handler):
    """Keeps the errors that asyncio logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, with the exception that caused it."""
        cause = f" {record.exc_info[1]!r}" if record.exc_info else ""
        self.messages.append(f"asyncio: {record.getMessage()}{cause}")


def _unfinished(runner: asyncio.Runner) -> Iterator[str]:
    """Return the tasks and async generators that are unfinished in a loop that is about to be closed."""
    loop: asyncio.AbstractEventLoop | None = getattr(runner, "_loop", None)
    if loop is None or loop.is_closed():
        return
    if asyncio.all_tasks(loop):
        loop.run_until_complete(_let_cancelled_tasks_end())
    for task in asyncio.all_tasks(loop):
        if getattr(task.get_coro(), "__qualname__", "") not in _FORGOTTEN_BY_AIOHTTP:
            yield f"pending task: {task!r}"
    for generator in getattr(loop, "_asyncgens", ()):
        if generator.ag_frame is not None:
            yield f"async generator not closed: {generator!r}"


async def _let_cancelled_tasks_end() -> None:
    for _ in range(_LOOP_TURNS):
        await asyncio.sleep(0)


def _collect_garbage(generation: int = _ALL) -> list[str]:
    """Collect garbage; return the warnings and errors that its finalizers raise."""
    raised: list[str] = []
    with _unraisable_hook(lambda args: raised.append(f"collected: {args.exc_value!r} in {args.object!r}")):
        gc.collect(generation)
    return raised


@contextmanager
def _unraisable_hook(hook: Callable[[sys.UnraisableHookArgs], object]) -> Iterator[None]:
    previous = sys.unraisablehook
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _descriptors() -> Iterator[str]:
    if not _FDS.is_dir():  # only Linux has it
        return
    for descriptor in _FDS.iterdir():
        try:
            target = descriptor.readlink()
        except FileNotFoundError:  # the descriptor that listed the folder
            continue
        yield f"descriptor {target}"


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        if not thread.daemon:
            yield f"thread {thread.name}"


def _child_processes() -> Iterator[str]:
    for child in _child_ids():
        yield f"{_CHILD}{child}"


def _with_command(name: str) -> str:
    """Add the command of a child process, which is known a little later than its id."""
    if name.startswith(_CHILD):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            return f"{name} ({Path('/proc', name.removeprefix(_CHILD), 'comm').read_text().strip()})"
    return name


def _child_ids() -> Iterator[str]:
    by_thread = list(Path("/proc/self/task").glob("*/children"))
    for file in by_thread:
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            yield from file.read_text().split()
    if not by_thread:  # a kernel without CONFIG_PROC_CHILDREN
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    yield folder.name
