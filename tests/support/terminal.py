"""Runs a program on a terminal, with typed input."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

_WITHIN_SECONDS: Final = 60.0
_SPAWN: Final = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Terminal:
    """The output of a program, and its keyboard."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._shown = bytearray()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def shown(self) -> str:
        """The whole output."""
        with self._changed:
            return self._shown.decode("utf-8", "replace")

    def wait_for(self, text: str, *, after: int = 0) -> int:
        """Wait until a text is shown and return the position of its end."""
        with self._changed:
            wanted = text.encode()
            assert self._changed.wait_for(lambda: self._shown.find(wanted, after) >= 0, _WITHIN_SECONDS), self.shown
            return self._shown.find(wanted, after) + len(wanted)

    def type(self, text: str) -> None:
        """Type a text."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def end(self) -> int:
        """Wait until the program has ended and return its exit status."""
        status = self._process.wait(_WITHIN_SECONDS)
        self._reader.join(_WITHIN_SECONDS)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        while some := os.read(self._process.stdout.fileno(), 65_536):
            with self._changed:
                self._shown += some
                self._changed.notify_all()


@contextmanager
def on_terminal(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a program with a controlling terminal."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SPAWN, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
    )
    try:
        yield Terminal(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
