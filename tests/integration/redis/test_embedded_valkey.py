"""The embedded Valkey: private, and gone when its owner is."""

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


async def test_it_answers_on_a_private_socket_and_nowhere_else() -> None:
    """Its folder is ours alone, it has no port, and it writes nothing to disk."""
    async with embedded_valkey() as server, open_store(server.url) as store:
        await store.ping()
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        assert await store._redis.command("CONFIG", "GET", "port") == [b"port", b"0"]
        assert {path.name for path in server.folder.iterdir()} == {"valkey.sock", "valkey.log"}


async def test_it_is_gone_when_its_context_ends() -> None:
    """Process, socket and folder."""
    async with embedded_valkey() as server:
        process = server.process
    assert process.poll() is not None
    assert not server.folder.exists()


def test_it_is_gone_when_its_owner_is_killed() -> None:
    """``kill -9`` leaves no server behind."""
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


def test_another_binary_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the environment; what is no program is refused with the variable's name."""
    monkeypatch.setenv(BINARY_VARIABLE, sys.executable)
    assert find_binary() == Path(sys.executable)
    monkeypatch.setenv(BINARY_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ProcessFailed, match=BINARY_VARIABLE):
        find_binary()


async def test_a_server_that_ends_at_once_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it wrote last."""
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
