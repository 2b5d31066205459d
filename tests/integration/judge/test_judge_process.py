"""Tests of the siwe judge in its child process: agreement, disagreement, and a child that fails."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from datetime import timedelta
from pathlib import Path

import pytest

import signer
from signer.adapters import siwe_judge
from signer.adapters.siwe_judge import JudgeError, JudgeFailure, judge_shapes
from signer.domain.policy import SigningPolicy

POLICY = SigningPolicy(
    domains=frozenset({"api.offblocks.xyz", "api.sandbox.offblocks.xyz"}),
    chains=frozenset({324, 300, 280, 42161, 421614}),
    statements=frozenset({"OffBlocks wants to verify ownership of your wallet."}),
)
LONG = timedelta(seconds=60)
ROOT = Path(signer.__file__).parents[1]


def interpreter(folder: Path, script: str) -> str:
    """Create a shell script that runs instead of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def failure(policy: SigningPolicy = POLICY, timeout: timedelta = LONG, **how: str) -> JudgeError:
    """Return the error of a judgement that fails."""
    with pytest.raises(JudgeError) as error:
        await judge_shapes(policy, timeout, **how)
    return error.value


async def test_siwe_agrees_to_every_shape_of_the_settings() -> None:
    """The report has the number of examples and the name of the library."""
    report = await judge_shapes(POLICY, LONG)
    assert report.examples >= 20
    assert report.library.startswith("signinwithethereum 5.")


async def test_any_statement_and_pinned_uris_are_judged_too() -> None:
    """Settings without pinned statements have other shapes."""
    pinned = frozenset({"https://api.offblocks.xyz/a?b#c"})
    policy = SigningPolicy(domains=POLICY.domains, chains=frozenset({1}), statements=None, uris=pinned)
    assert (await judge_shapes(policy, LONG)).examples >= 6


async def test_shape_that_our_parser_refuses_is_reported() -> None:
    """A pinned statement that EIP-4361 forbids could never be signed, so the start fails, without its text."""
    policy = SigningPolicy(domains=POLICY.domains, chains=frozenset({1}), statements=frozenset({"Grüße an 'marker'"}))
    error = await failure(policy)
    assert error.reason is JudgeFailure.DISAGREES
    assert "challenge_not_ascii" in str(error)
    assert "marker" not in str(error)


async def test_shape_that_siwe_refuses_is_reported(tmp_path: Path) -> None:
    """In the child siwe refuses one message; the error has its number, not its text."""
    (tmp_path / "refusing.py").write_text(
        "import siwe, signer.adapters.siwe_judge as judge\n"
        "read = siwe.SiweMessage.from_message.__func__\n"
        "def refuse(cls, message, abnf=True):\n"
        "    if 'Request ID' in message:\n"
        "        raise ValueError(message)\n"
        "    return read(cls, message, abnf)\n"
        "siwe.SiweMessage.from_message = classmethod(refuse)\n"
        "judge.main()\n",
    )
    command = f"PYTHONPATH={ROOT}:{tmp_path} exec {sys.executable} -m refusing"
    error = await failure(python=interpreter(tmp_path, command))
    assert error.reason is JudgeFailure.DISAGREES
    assert "siwe disagrees about 'refused'" in str(error)
    assert "offblocks" not in str(error)


async def test_settings_that_allow_nothing_are_reported() -> None:
    """Settings that allow no challenge are an error."""
    policy = SigningPolicy(domains=frozenset(), chains=frozenset({1}), statements=None)
    assert (await failure(policy)).reason is JudgeFailure.NOTHING_TO_JUDGE


async def test_child_that_hangs_is_killed(tmp_path: Path) -> None:
    """After the timeout the child is gone, and the error contains the timeout."""
    script = f"echo $$ >{tmp_path}/pid; exec sleep 600"
    error = await failure(timeout=timedelta(seconds=2), python=interpreter(tmp_path, script))
    assert error.reason is JudgeFailure.TIMED_OUT
    assert "2 s" in str(error)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_cancelled_judge_leaves_no_child(tmp_path: Path) -> None:
    """A service that is stopped while it starts kills its child."""
    script = f"echo $$ >{tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; exec sleep 600"
    judging = asyncio.create_task(judge_shapes(POLICY, LONG, python=interpreter(tmp_path, script)))
    while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging
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
        ("cat >/dev/null; echo '\"a library\"'; echo null", "every example"),
    ],
)
async def test_child_that_dies_or_returns_garbage_is_an_error(tmp_path: Path, script: str, how: str) -> None:
    """Without a verdict the start fails, and the error says how to see more."""
    error = await failure(python=interpreter(tmp_path, script))
    assert error.reason is JudgeFailure.DIED
    assert how in str(error)
    assert "python -m signer.adapters.siwe_judge" in str(error)


async def test_missing_interpreter_is_an_error(tmp_path: Path) -> None:
    """A missing interpreter and a failing one have different errors."""
    assert (await failure(python=str(tmp_path / "none"))).reason is JudgeFailure.NOT_STARTED


async def test_child_without_siwe_is_an_error(tmp_path: Path) -> None:
    """An installation without siwe cannot start."""
    command = f'PYTHONPATH={ROOT} exec {sys.executable} -S "$@"'
    assert (await failure(python=interpreter(tmp_path, command))).reason is JudgeFailure.DIED


async def test_child_gets_nothing_of_our_environment(tmp_path: Path) -> None:
    """The child does not get the environment of the service, which may contain secrets."""
    await failure(python=interpreter(tmp_path, f"env >{tmp_path}/environment"))
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert names <= {"PYTHONPATH", "PWD", "SHLVL", "_"}


async def test_child_of_installed_package_has_an_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package is found without PYTHONPATH."""
    assert siwe_judge._child_environment() == {"PYTHONPATH": str(ROOT)}
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(ROOT))
    assert siwe_judge._child_environment() == {}


def test_parent_imports_neither_siwe_nor_web3(tmp_path: Path) -> None:
    """A service under ``python -P`` in another folder can use the judge, and does not import its modules."""
    program = (
        "import asyncio, datetime, json, sys\n"
        "from signer.adapters.siwe_judge import judge_shapes\n"
        "from signer.domain.policy import SigningPolicy\n"
        "policy = SigningPolicy(frozenset({'a.example'}), frozenset({1}), None)\n"
        "report = asyncio.run(judge_shapes(policy, datetime.timedelta(seconds=60)))\n"
        "print(json.dumps([report.examples, sorted(name.partition('.')[0] for name in sys.modules)]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    judged, modules = json.loads(run.stdout)
    assert judged > 0
    assert not {"siwe", "web3", "abnf", "eth_account", "websockets", "aiohttp"} & set(modules)
