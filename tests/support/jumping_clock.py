"""A Valkey whose clock a test sets while it runs: forward, backward, by seconds or by years.

The server runs under libfaketime (Debian package faketime), which adds the offset in a file to the machine's time.
``TIME``, also in Lua, and the expiry of keys follow it; the monotonic clock, which Valkey's own timers use, does not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from signer.devsite.embedded_valkey import find_binary
from signer.devsite.processes import ProcessFailed
from tests.support.servers import RedisServer, plain_port, running

_LIBRARIES: Final = ("/usr/lib", "/usr/local/lib")
_ROUNDING: Final = timedelta(milliseconds=500)
"""The smallest jump is a second, and a busy machine may pause between reading two clocks."""

_SHARED_MEMORY: Final = Path("/dev/shm")
_LAUNCHER: Final = """\
#!/bin/sh
export LD_PRELOAD='{library}' FAKETIME_TIMESTAMP_FILE='{offset}' FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
exec '{binary}' "$@"
"""


class JumpingClock:
    """The server's wall clock.

    Attributes:
        ahead: of the machine's clock; may be negative.
    """

    def __init__(self, server: RedisServer, offset: Path) -> None:
        self._server = server
        self._offset = offset
        self.ahead = timedelta(0)

    def set(self, ahead: timedelta) -> None:
        """Set how far the clock is ahead, and wait until scripts see it: Valkey reads it every millisecond."""
        self.ahead = ahead
        write_offset(self._offset, ahead)
        while abs(self._seen() - self.now()) > _ROUNDING:
            pass

    def jump(self, by: timedelta) -> None:
        """Set the clock forward, or back."""
        self.set(self.ahead + by)

    def now(self) -> datetime:
        """Return the time of the server's clock."""
        return datetime.now(UTC) + self.ahead

    def _seen(self) -> datetime:
        seconds, micros = self._server.command("EVAL", "return redis.call('TIME')", 0)
        return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros))


def write_offset(file: Path, ahead: timedelta) -> None:
    """Write the offset for libfaketime, atomically."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{ahead.total_seconds():+.6f}\n")
    fresh.replace(file)


@contextmanager
def valkey_with_clock(*options: str) -> Iterator[tuple[RedisServer, JumpingClock]]:
    """Run Valkey with its own clock.

    Raises:
        ProcessFailed: libfaketime is not installed; a test that needs it is marked ``needs("faketime")``.
    """
    found = [path for root in _LIBRARIES for path in Path(root).glob("**/faketime/libfaketimeMT.so.1")]
    if not found:
        raise ProcessFailed("libfaketime is not installed: `make test` installs it (Debian package faketime).")
    with tempfile.TemporaryDirectory(prefix="clock-") as folder:
        offset, launcher = Path(folder) / "offset", Path(folder) / "valkey-server"
        write_offset(offset, timedelta(0))
        launcher.write_text(_LAUNCHER.format(library=found[0], offset=offset, binary=find_binary()))
        launcher.chmod(0o700)
        with running(launcher, lambda port: (*plain_port(port), *options)) as server:
            process = server.process.pid
            try:
                yield server, JumpingClock(server, offset)
            finally:
                server.stop()
                for left in _SHARED_MEMORY.glob(f"*faketime_*_{process}"):  # a killed process leaves them behind
                    left.unlink(missing_ok=True)
