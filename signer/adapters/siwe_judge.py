"""Check our parser against the library siwe, in a child process, before the service is ready.

* Every message that our parser accepts must be accepted by siwe, with equal fields and byte-for-byte the same text.
* The service checks examples made from its settings, never a caller's text: siwe's parse time is quadratic.
* Only the child process imports siwe and web3, so the service needs no memory for them.
* A disagreement is a bug in one of the two parsers, and the service does not start.
* No error quotes a message.

The child is ``python -m signer.adapters.siwe_judge``. It reads one message a line (JSON strings) from standard input,
and writes one verdict a line: ``null``, or what the two parsers disagree about.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import sysconfig
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from signer.adapters.challenge_examples import examples
from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.errors import MalformedChallenge
from signer.domain.policy import SigningPolicy

_MODULE: Final = "signer.adapters.siwe_judge"
_SIWE_ERRORS: Final = (ValueError, TypeError, OverflowError, RecursionError)
"""What siwe raises for a message that it does not accept."""


def find_disagreement(message: bytes, challenge: Challenge) -> str | None:
    """Parse ``message`` with siwe and compare the result with ``challenge``, which our parser returned for it.

    Returns:
        ``None`` if the two agree, ``refused`` if siwe does not accept the message, else the attribute of ``Challenge``
        that differs (``message``: siwe would write the message with other bytes).
    """
    from siwe import SiweMessage  # type: ignore[import-untyped] # noqa: PLC0415 - imported in the child only

    try:
        text = message.decode("ascii")
        parsed = SiweMessage.from_message(text, abnf=True)
        fields = _fields_of(parsed)
    except _SIWE_ERRORS:
        return "refused"
    for name, value in fields.items():
        if value != getattr(challenge, name):
            return name
    return None if parsed.prepare_message() == text and challenge.message == message else "message"


def _fields_of(parsed: Any) -> dict[str, object]:  # noqa: ANN401 - siwe is not typed
    texts = ("scheme", "domain", "address", "statement", "uri", "chain_id", "nonce", "request_id")
    times = ("issued_at", "expiration_time", "not_before")
    return {
        **{name: getattr(parsed, name) for name in texts},
        **{name: (text := getattr(parsed, name)) and datetime.fromisoformat(text) for name in times},
        "resources": tuple(parsed.resources or ()),
    }


class JudgeError(Exception):
    """siwe and our parser disagree, or the check could not be completed."""


async def check_parser_against_siwe(policy: SigningPolicy, timeout: timedelta, *, python: str = sys.executable) -> int:
    """Compare both parsers on one example of every shape that ``policy`` allows, in a child process.

    Args:
        policy: the policy that the service signs by.
        timeout: for the whole check; the imports take a second, each message 2 to 20 ms.
        python: the interpreter of the child process.

    Returns:
        The number of examples, each of another shape.

    Raises:
        JudgeError: the parsers disagree, or the check could not be completed.
    """
    messages = examples(policy)
    if not messages:
        raise JudgeError("The settings allow no message: check policy.domains, policy.uris and policy.chains.")
    output = await _run_child("".join(f"{json.dumps(message)}\n" for message in messages).encode(), timeout, python)
    try:
        verdicts = [json.loads(line) for line in output.splitlines()]
    except ValueError:
        verdicts = []
    if len(verdicts) != len(messages):
        raise _died("did not write a verdict for every example")
    for number, verdict in enumerate(verdicts, start=1):
        if verdict is not None:
            raise JudgeError(f"Example {number} of {len(messages)}: {verdict}.")
    return len(messages)


async def _run_child(lines: bytes, timeout: timedelta, python: str) -> bytes:
    # A thread reads and writes: asyncio's pipes raise or log an error if the child ends before it has read everything.
    try:
        child = subprocess.Popen(  # noqa: ASYNC220, S603 - a few milliseconds; our own module
            [python, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_child_environment(),
        )
    except OSError as exc:
        raise JudgeError(f"The child process could not be started ({exc.strerror}).") from exc
    with child:
        reading = asyncio.create_task(asyncio.to_thread(child.communicate, lines, timeout.total_seconds()))
        try:
            output, _ = await asyncio.shield(reading)
        except subprocess.TimeoutExpired:
            raise JudgeError(f"The child process did not finish within {timeout.total_seconds():g} s.") from None
        finally:
            child.kill()
            await asyncio.wait({reading})
    if child.returncode != 0:
        raise _died(f"exited with status {child.returncode}")
    return output


def _died(what_happened: str) -> JudgeError:
    return JudgeError(f"The child process {what_happened}; run `python -m {_MODULE} </dev/null` to see why.")


def _child_environment() -> dict[str, str]:
    """Return the child's whole environment: where to find this package, if it is not an installed one."""
    root = str(Path(__file__).resolve().parents[2])
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return {} if root in installed else {"PYTHONPATH": root}


def _verdict(text: str) -> str | None:
    message = text.encode()
    try:
        challenge = parse_challenge(message)
    except MalformedChallenge as refusal:
        return f"our own parser refuses it as {refusal.code}"
    about = find_disagreement(message, challenge)
    return None if about is None else f"siwe disagrees about '{about}'"


def main() -> None:
    """Run the child process: read messages from standard input, write verdicts to standard output."""
    import siwe  # noqa: F401, PLC0415 - a missing installation must fail here, also if there is nothing to check

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_verdict(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
