"""The embedded Valkey: private, and ended with its parent."""

from __future__ import annotations

import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from signer.devsite.embedded_valkey import BINARY_VARIABLE, embedded_valkey, find_binary
from signer.devsite.processes import ProcessFailed
from tests.support.challenge_stores import open_store

OWNER = textwrap.dedent(
    """
    import asyncio
    from signer.devsite.embedded_valkey import embedded_valkey

    async def main():
        async with embedded_valkey() as valkey:
            print(valkey.process.pid, flush=True)
            await asyncio.sleep(60)

    asyncio.run(main())
    """,
)


async def test_valkey_listens_on_a_private_socket_only() -> None:
    """Only the current user can enter its folder; it has no port and writes nothing to disk."""
    async with embedded_valkey() as server, open_store(server.url) as store:
        await store.ping()
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        assert await store._redis.command("CONFIG", "GET", "port") == [b"port", b"0"]
        assert {path.name for path in server.folder.iterdir()} == {"valkey.sock", "valkey.log"}


async def test_valkey_is_removed_when_its_context_ends() -> None:
    """Process, socket and folder."""
    async with embedded_valkey() as server:
        process = server.process
    assert process.poll() is not None
    assert not server.folder.exists()


def test_valkey_ends_when_its_parent_is_killed() -> None:
    """``kill -9`` leaves no server running."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert _is_alive(pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    ends = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < ends, "the server outlived its owner"
        time.sleep(0.01)


def test_environment_variable_chooses_the_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If it cannot be executed, the error names the variable."""
    monkeypatch.setenv(BINARY_VARIABLE, sys.executable)
    assert find_binary() == Path(sys.executable)
    monkeypatch.setenv(BINARY_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ProcessFailed, match=BINARY_VARIABLE):
        find_binary()


async def test_error_has_last_log_lines_if_server_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason that the server logged."""
    monkeypatch.setenv(BINARY_VARIABLE, sys.executable)
    with pytest.raises(ProcessFailed, match=r"(?s)ended.*option"):
        async with embedded_valkey():
            pass


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
