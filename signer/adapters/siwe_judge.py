"""The library siwe as the judge of our parser, in a process of its own, before the service is ready.

* What our parser accepts siwe has to accept, with equal fields, and to write out byte for byte as it was received.
* In the service, only examples made from the settings are judged, never a caller's text: siwe's parser is quadratic.
* siwe and web3 are imported by the child process alone; the service neither waits for them nor holds them in memory.
* A disagreement is a defect of ours or of theirs, and the service does not start with it.
* No error quotes a message.

The child is ``python -m signer.adapters.siwe_judge``: one message a line on its standard input (JSON strings), the
library's name and then one verdict a line on its standard output (``null``, or what the two disagree about).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import sysconfig
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from signer.adapters.challenge_examples import examples
from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.errors import MalformedChallenge
from signer.domain.policy import SigningPolicy

_MODULE: Final = "signer.adapters.siwe_judge"
_DISTRIBUTION: Final = "signinwithethereum"
_REFUSALS: Final = (ValueError, TypeError, OverflowError, RecursionError)
"""What siwe is known to raise for a message that it does not accept."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Where siwe and our parser part.

    Attributes:
        about: ``refused`` where siwe does not accept the message; else the attribute of ``Challenge`` that differs,
            ``message`` being the text as siwe would write it.
    """

    about: str


def judge(message: bytes, challenge: Challenge) -> Disagreement | None:
    """Have siwe read ``message`` by its ABNF, and compare with what our parser made of it.

    It takes milliseconds, and longer the first time, for it imports siwe and web3.
    """
    from siwe import SiweMessage  # type: ignore[import-untyped] # noqa: PLC0415 - the child alone pays for it

    try:
        text = message.decode("ascii")
        theirs = SiweMessage.from_message(text, abnf=True)
        fields = _fields_of(theirs)
    except _REFUSALS:
        return Disagreement("refused")
    for name, value in fields.items():
        if value != getattr(challenge, name):
            return Disagreement(name)
    if theirs.prepare_message() != text or challenge.message != message:
        return Disagreement("message")
    return None


def _fields_of(theirs: Any) -> dict[str, object]:  # noqa: ANN401 - siwe is not typed
    return {
        "scheme": theirs.scheme,
        "domain": theirs.domain,
        "address": theirs.address,
        "statement": theirs.statement,
        "uri": theirs.uri,
        "chain_id": theirs.chain_id,
        "nonce": theirs.nonce,
        "issued_at": datetime.fromisoformat(theirs.issued_at),
        "expiration_time": _instant(theirs.expiration_time),
        "not_before": _instant(theirs.not_before),
        "request_id": theirs.request_id,
        "resources": tuple(theirs.resources or ()),
    }


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class JudgeFailure(StrEnum):
    """Why there is no agreement to build on."""

    NOTHING_TO_JUDGE = "nothing_to_judge"
    NOT_STARTED = "not_started"
    TIMED_OUT = "timed_out"
    DIED = "died"
    DISAGREES = "disagrees"


class JudgeError(Exception):
    """The judge disagrees, or could not judge.

    Attributes:
        reason: which of the two, and how.
    """

    def __init__(self, reason: JudgeFailure, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What the judge agreed to.

    Attributes:
        examples: how many messages, each of another shape.
        library: who judged: distribution and version.
    """

    examples: int
    library: str


async def judge_shapes(policy: SigningPolicy, timeout: timedelta, *, python: str = sys.executable) -> JudgeReport:
    """Have siwe judge one example of every shape that ``policy`` allows, in a child process that ends with this call.

    Args:
        policy: the settings that the service signs by.
        timeout: for all of it; the imports take a second, each message 2 to 20 ms.
        python: the interpreter.

    Raises:
        JudgeError: siwe and our parser disagree, or the judge did not come to an end.
    """
    messages = examples(policy)
    if not messages:
        detail = "The settings allow no message at all: there is no domain with a URI of its own, or no chain."
        raise JudgeError(JudgeFailure.NOTHING_TO_JUDGE, detail)
    answer = await _ask_child("".join(f"{json.dumps(message)}\n" for message in messages).encode(), timeout, python)
    try:
        library, *verdicts = [json.loads(line) for line in answer.splitlines()]
    except ValueError:
        library, verdicts = None, []
    if not isinstance(library, str) or len(verdicts) != len(messages):
        raise _died("did not answer for every example")
    for number, verdict in enumerate(verdicts, start=1):
        if verdict is not None:
            raise JudgeError(JudgeFailure.DISAGREES, f"Example {number} of {len(messages)}: {verdict}.")
    return JudgeReport(len(messages), library)


async def _ask_child(lines: bytes, timeout: timedelta, python: str) -> bytes:
    try:
        child = await asyncio.create_subprocess_exec(
            python,
            "-P",
            "-m",
            _MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_child_environment(),
        )
    except OSError as exc:
        detail = f"The judge's process could not be started ({exc.strerror})."
        raise JudgeError(JudgeFailure.NOT_STARTED, detail) from exc
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            answer, _ = await child.communicate(lines)
    except TimeoutError:
        raise JudgeError(JudgeFailure.TIMED_OUT, f"No verdict within {timeout.total_seconds():g} s.") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        raise _died(f"ended with status {child.returncode}")
    return answer


def _died(how: str) -> JudgeError:
    detail = f"The judge's process {how}; `python -m {_MODULE} </dev/null` shows why."
    return JudgeError(JudgeFailure.DIED, detail)


def _child_environment() -> dict[str, str]:
    """Nothing of ours but, where this package is not an installed one, where it stands."""
    root = str(Path(__file__).resolve().parents[2])
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return {} if root in installed else {"PYTHONPATH": root}


def _verdict(text: str) -> str | None:
    message = text.encode()
    try:
        challenge = parse_challenge(message)
    except MalformedChallenge as refusal:
        return f"our own parser refuses it as {refusal.code}"
    disagreement = judge(message, challenge)
    return None if disagreement is None else f"siwe disagrees about '{disagreement.about}'"


def main() -> None:
    """Judge standard input: the child's part."""
    import siwe  # noqa: F401, PLC0415 - so that an installation without it ends here, whatever there is to judge

    sys.stdout.write(json.dumps(f"{_DISTRIBUTION} {version(_DISTRIBUTION)}") + "\n")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_verdict(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
