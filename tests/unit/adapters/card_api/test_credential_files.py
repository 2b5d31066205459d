"""The files of the API key and its secret, also on a mount that hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from signer.adapters.card_api import credential_files
from signer.adapters.card_api.credential_files import MOST_HUNG, ApiCredentials, CredentialFiles
from signer.adapters.card_api.results import Failure
from signer.domain.errors import ErrorCode
from tests.support.hanging_files import HangingFile, hanging_file

EXITING = """
import asyncio, sys
from pathlib import Path
from signer.adapters.card_api.credential_files import CredentialFiles

async def read():
    await CredentialFiles(Path(sys.argv[1]), Path(sys.argv[1])).read(asyncio.get_running_loop().time() + 0.1)
    print("returned")

asyncio.run(read())
"""


@pytest.fixture
def files(tmp_path: Path) -> CredentialFiles:
    """The two files."""
    (tmp_path / "secret").write_text(" the-secret\r\n")
    (tmp_path / "key").write_text("the-key\n")
    return CredentialFiles(tmp_path / "key", tmp_path / "secret")


@pytest.fixture
def hanging(files: CredentialFiles, tmp_path: Path) -> Iterator[HangingFile]:
    """The first of the files, which hangs."""
    with hanging_file(tmp_path / "key") as file:
        yield file


async def until_readers(count: int) -> None:
    """Wait until so many threads read; one that has its result ends a little later."""
    async with asyncio.timeout(30):
        while sum(thread.name == "read-credentials" for thread in threading.enumerate()) != count:  # noqa: ASYNC110 - a thread sends no event
            await asyncio.sleep(0.01)


async def read(files: CredentialFiles, within: float = 10.0) -> ApiCredentials | Failure:
    """Read the files until a deadline."""
    return await files.read(asyncio.get_running_loop().time() + within)


async def test_credentials_are_stripped_and_hidden(files: CredentialFiles) -> None:
    """Line ends of the files are removed; no ``repr`` shows a secret."""
    credentials = await read(files)
    assert credentials == ApiCredentials("the-key", "the-secret")
    assert "the-" not in repr(credentials)


async def test_file_that_hangs_fails_until_it_is_replaced(files: CredentialFiles, hanging: HangingFile) -> None:
    """Within the deadline, and with the name of the setting."""
    failure = await read(files, within=0.1)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.cause) == (ErrorCode.CARD_API_CREDENTIALS_REFUSED, "credentials_refused")
    assert "card_api.api_key_file cannot be read within 0.1 s" in failure.detail
    hanging.replace("the-key")
    assert await read(files) == ApiCredentials("the-key", "the-secret")
    await until_readers(1)


async def test_read_ends_before_distant_deadline(
    files: CredentialFiles, hanging: HangingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the callers, who have the same time for the whole call, learn the reason."""
    monkeypatch.setattr(credential_files, "READ_WITHIN", timedelta(milliseconds=50))
    started = time.monotonic()
    assert isinstance(await read(files, within=60), Failure)
    assert time.monotonic() - started < 30


async def test_number_of_hanging_threads_is_limited(
    files: CredentialFiles, hanging: HangingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few hang at once. Then there is a pause before the next one, and none if one of them returns."""
    for _ in range(MOST_HUNG + 3):
        assert isinstance(await read(files, within=0.01), Failure)
    await until_readers(MOST_HUNG)
    monkeypatch.setattr(files, "_pause_ends", 0.0)
    for _ in range(3):
        assert isinstance(await read(files, within=0.01), Failure)
    await until_readers(MOST_HUNG + 1)
    hanging.release()
    hanging.replace("the-key")
    await until_readers(0)
    await asyncio.sleep(0)  # the event loop takes their results
    assert await read(files) == ApiCredentials("the-key", "the-secret")


def test_file_that_hangs_does_not_keep_the_process_from_ending(hanging: HangingFile, tmp_path: Path) -> None:
    """Its thread is not waited for."""
    command = [sys.executable, "-c", EXITING, str(tmp_path / "key")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "returned\n"
