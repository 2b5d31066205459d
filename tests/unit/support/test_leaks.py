from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CONFTEST = """
from tests.support import leaks

def pytest_configure(config):
    leaks._GRACE_SECONDS = 0.1
    config.pluginmanager.register(leaks.LeakGuard())
"""

TESTS = """
import asyncio, socket, subprocess, threading, aiohttp, pytest

kept = []

async def test_pending_task():
    kept.append(asyncio.create_task(asyncio.sleep(60)))

async def test_clean_after_task():
    await asyncio.create_task(asyncio.sleep(0))

async def test_unclosed_connection():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    cycle = [await asyncio.open_connection(*server.sockets[0].getsockname())]
    cycle.append(cycle)
    server.close()

def test_clean_after_connection(): ...

async def test_unclosed_session():
    cycle = [aiohttp.ClientSession()]
    cycle.append(cycle)

@pytest.fixture
async def session():
    cycle = [aiohttp.ClientSession()]
    cycle.append(cycle)
    return cycle

async def test_unclosed_session_of_fixture(session): ...

async def test_clean_after_session(): ...

async def test_unclosed_generator():
    async def numbers():
        yield 1
        yield 2
    kept.append(numbers())
    await anext(kept[-1])

async def test_unseen_exception():
    async def fail():
        raise ValueError("unseen")
    asyncio.create_task(fail())
    await asyncio.sleep(0)

def test_open_socket():
    kept.append(socket.socket())

def test_running_thread():
    kept.append(threading.Event())
    threading.Thread(target=kept[-1].wait).start()

def test_running_child():
    kept.append(subprocess.Popen(["sleep", "60"]))

@pytest.fixture(scope="module")
def shared_socket():
    with socket.socket() as opened:
        yield opened

def test_clean_with_shared_socket(shared_socket): ...

def test_clean_after_shared_socket(): ...

def test_clean_up():
    for one in kept:
        if isinstance(one, socket.socket):
            one.close()
        if isinstance(one, threading.Event):
            one.set()
        if isinstance(one, subprocess.Popen):
            one.kill()
            one.wait()
"""

EXPECTED = {
    "test_pending_task": "pending task",
    "test_unclosed_connection": "unclosed transport|unclosed <socket",
    "test_unclosed_session": "Unclosed client session",
    "test_unclosed_session_of_fixture": "Unclosed client session",
    "test_unclosed_generator": "async generator not closed",
    "test_unseen_exception": "exception was never retrieved",
    "test_open_socket": r"still open: descriptor socket",
    "test_running_thread": "still open: thread",
    "test_running_child": r"still open: child process \d+ \(sleep\)",
}


def test_test_fails_at_its_own_end_for_what_it_leaves(tmp_path: Path) -> None:
    """Each leaking test of the sample fails with its finding; the tests after it pass."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_sample.py").write_text(TESTS)
    root = Path(__file__).parents[3]
    options = ["-q", "-p", "no:cacheprovider", "-c", str(root / "pyproject.toml"), "--rootdir", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    output = run.stdout.partition("short test summary")[0]
    sections = re.split(r"^_+ ERROR at teardown of (\w+) _+$", output, flags=re.MULTILINE)
    finding_for_test = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert finding_for_test.keys() == EXPECTED.keys(), run.stdout
    for test, finding in EXPECTED.items():
        assert re.search(finding, finding_for_test[test]), finding_for_test[test]
