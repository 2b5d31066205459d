"""The child process that runs siwe: agreement, disagreement, and a child that hangs, fails or writes garbage."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import signer
from signer.adapters import siwe_judge
from signer.adapters.challenge_examples import examples
from signer.adapters.siwe_judge import JudgeError, check_parser_against_siwe
from signer.domain.policy import SigningPolicy
from tests.support.messages import DEFAULT_POLICY

POLICY = replace(
    DEFAULT_POLICY,
    domains=frozenset({"api.offblocks.xyz", "api.sandbox.offblocks.xyz"}),
    chains=frozenset({324, 300, 280, 42161, 421614}),
    statements=frozenset({"OffBlocks wants to verify ownership of your wallet."}),
)
LONG = timedelta(seconds=60)
ROOT = Path(signer.__file__).parents[1]


def write_interpreter(folder: Path, script: str) -> str:
    """Create a script that replaces the Python interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def failure(policy: SigningPolicy = POLICY, timeout: timedelta = LONG, **how: str) -> JudgeError:
    """Run the check, which must fail; return the error."""
    with pytest.raises(JudgeError) as error:
        await check_parser_against_siwe(policy, timeout, **how)
    return error.value


async def test_siwe_agrees_on_every_shape_of_settings() -> None:
    """The result is the number of examples."""
    assert await check_parser_against_siwe(POLICY, LONG) >= 20


async def test_siwe_agrees_with_any_statement_and_pinned_uris() -> None:
    """Other settings have other shapes."""
    pinned = frozenset({"https://api.offblocks.xyz/a?b#c"})
    policy = replace(POLICY, statements=None, uris=pinned)
    assert await check_parser_against_siwe(policy, LONG) >= 6


async def test_shape_that_our_parser_refuses_is_reported() -> None:
    """A statement in the settings that EIP-4361 forbids is an error at start, which does not quote it."""
    policy = replace(POLICY, statements=frozenset({"Grüße an 'marker'"}))
    error = await failure(policy)
    assert re.match(r"Example \d+ of \d+: our own parser refuses it", str(error))
    assert "challenge_not_ascii" in str(error)
    assert "marker" not in str(error)


async def test_shape_that_siwe_refuses_is_reported(tmp_path: Path) -> None:
    """The error has the number of the example, not its text."""
    (tmp_path / "refusing.py").write_text(
        "import siwe, signer.adapters.siwe_judge\n"
        "read = siwe.SiweMessage.from_message.__func__\n"
        "def refuse(cls, message, abnf=True):\n"
        "    if 'Request ID' in message:\n"
        "        raise ValueError(message)\n"
        "    return read(cls, message, abnf)\n"
        "siwe.SiweMessage.from_message = classmethod(refuse)\n"
        "signer.adapters.siwe_judge.main()\n",
    )
    command = f"PYTHONPATH={ROOT}:{tmp_path} exec {sys.executable} -m refusing"
    error = await failure(python=write_interpreter(tmp_path, command))
    assert re.match(r"Example \d+ of \d+: ", str(error))
    assert "siwe disagrees about 'refused'" in str(error)
    assert "offblocks" not in str(error)


async def test_settings_that_allow_no_message_are_reported() -> None:
    """Without an example the settings are wrong."""
    policy = replace(POLICY, domains=frozenset())
    assert "allow no message" in str(await failure(policy))


async def test_child_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout the child does not exist any more, and the error has the timeout."""
    children: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def keep_started(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's
        children.append(start(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", keep_started)
    error = await failure(timeout=timedelta(seconds=1), python=write_interpreter(tmp_path, "exec sleep 600"))
    assert "did not finish within 1 s" in str(error)
    assert [child.returncode for child in children] == [-signal.SIGKILL]


async def test_cancellation_kills_child(tmp_path: Path) -> None:
    """A service that is stopped during its start leaves no child process."""
    script = f"echo $$ >{tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; exec sleep 600"
    check = asyncio.create_task(check_parser_against_siwe(POLICY, LONG, python=write_interpreter(tmp_path, script)))
    while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 3", "status 3"),
        ("kill -9 $$", "status -9"),
        ("exec cat >/dev/null", "every example"),
        ("cat >/dev/null; echo nonsense", "every example"),
        ("cat >/dev/null; echo null", "every example"),
    ],
)
async def test_child_that_fails_or_writes_garbage_is_reported(tmp_path: Path, script: str, how: str) -> None:
    """The error says what happened and which command shows the cause."""
    error = await failure(python=write_interpreter(tmp_path, script))
    assert how in str(error)
    assert "python -m signer.adapters.siwe_judge" in str(error)


@pytest.mark.parametrize("script", ["exit 3", "sleep 0.2; exit 3"])
async def test_child_that_reads_nothing_is_reported(tmp_path: Path, script: str) -> None:
    """The examples are longer than a pipe holds, so the child ends before they are written."""
    policy = replace(POLICY, domains=frozenset(f"{number:0>60}.example.org" for number in range(40)))
    assert sum(map(len, examples(policy))) > 65_536
    assert "status 3" in str(await failure(policy, python=write_interpreter(tmp_path, script)))


async def test_child_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    """The error says so for a missing interpreter."""
    assert "could not be started" in str(await failure(python=str(tmp_path / "none")))


async def test_installation_without_siwe_is_reported(tmp_path: Path) -> None:
    """The service must not start unchecked."""
    command = f'PYTHONPATH={ROOT} exec {sys.executable} -S "$@"'
    assert "exited with status 1" in str(await failure(python=write_interpreter(tmp_path, command)))


async def test_child_does_not_inherit_environment(tmp_path: Path) -> None:
    """The environment of the service can contain secrets."""
    await failure(python=write_interpreter(tmp_path, f"env >{tmp_path}/environment"))
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert names <= {"PYTHONPATH", "PWD", "SHLVL", "_"}


async def test_child_of_installed_package_has_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a package that is not installed needs ``PYTHONPATH``."""
    assert siwe_judge._child_environment() == {"PYTHONPATH": str(ROOT)}
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(ROOT))
    assert siwe_judge._child_environment() == {}


def test_parent_imports_neither_siwe_nor_web3(tmp_path: Path) -> None:
    """Under ``python -P``, in another folder, the check succeeds and the parent does not import the child's modules."""
    program = (
        "import asyncio, datetime, json, sys\n"
        "from signer.adapters.siwe_judge import check_parser_against_siwe\n"
        "from tests.support.messages import DEFAULT_POLICY as policy\n"
        "examples = asyncio.run(check_parser_against_siwe(policy, datetime.timedelta(seconds=60)))\n"
        "print(json.dumps([examples, sorted(name.partition('.')[0] for name in sys.modules)]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    examples, modules = json.loads(run.stdout)
    assert examples > 0
    assert not {"siwe", "web3", "abnf", "eth_account", "websockets", "aiohttp"} & set(modules)
