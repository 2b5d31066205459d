"""The CPU time of decoding a good challenge and checking the policy, and of parsing hostile texts.

The figures are microseconds, each the minimum of several rounds, because the machine may be shared. For comparison the
same run measures the Keccak hash of the address's checksum, a bare regular expression that splits the same message into
fields without checking them, and siwe's parser.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from benchmarks.hostile_texts import SIZE, hostile_texts
from signer.config.sections import SANDBOX_DOMAIN, PolicySettings
from signer.domain.challenge import decode_challenge, parse_challenge
from signer.domain.errors import MalformedChallenge
from signer.domain.ethereum import AccountId, checksum_address

GOLDEN = Path(__file__).parents[1] / "tests" / "vectors" / "golden.json"
BARE = re.compile(
    rb"(?P<domain>[^\n ]+) wants you to sign in with your Ethereum account:\n(?P<address>0x[0-9A-Fa-f]{40})\n\n"
    rb"(?:(?P<statement>[^\n]+)\n)?\nURI: (?P<uri>[^\n]+)\nVersion: 1\nChain ID: (?P<chain_id>[0-9]+)\n"
    rb"Nonce: (?P<nonce>[A-Za-z0-9]{8,})\nIssued At: (?P<issued_at>[^\n]+)",
)
GOLDEN_BUDGET_US = 50
HOSTILE_BUDGET_US = 5000


def least_cpu_us(call: Callable[[], object], *, rounds: int, calls: int) -> float:
    """Return the CPU time of one call in µs: the minimum over the rounds of the mean of ``calls`` calls."""
    means = []
    for _ in range(rounds):
        begun = time.process_time_ns()
        for _ in range(calls):
            call()
        means.append((time.process_time_ns() - begun) / calls / 1000)
    return min(means)


def _verdict(message: bytes) -> str:
    try:
        parse_challenge(message)
    except MalformedChallenge as refusal:
        return refusal.code
    return "accepted"


def main(argv: Sequence[str]) -> int:
    """Print the tables; return 0 if both figures are within budget, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks parse", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="number of measurements of each figure")
    parser.add_argument(
        "--siwe-on-hostile", action="store_true", help="also parse the hostile texts with siwe; takes minutes"
    )
    options = parser.parse_args(argv)
    whole = _golden_table(options.rounds)
    worst = _hostile_table(options.rounds, with_siwe=options.siwe_on_hostile)
    kept = whole < GOLDEN_BUDGET_US and worst < HOSTILE_BUDGET_US
    print(
        f"\nbudgets: golden {whole:.1f} of {GOLDEN_BUDGET_US} µs, worst hostile {worst:.0f} of {HOSTILE_BUDGET_US} µs"
    )
    return 0 if kept else 1


def _golden_table(rounds: int) -> float:
    from siwe import SiweMessage  # type: ignore[import-untyped] # noqa: PLC0415 - the import takes a second

    golden = json.loads(GOLDEN.read_text())
    encoded, now = golden["challenge"], datetime.fromisoformat(golden["valid_from"])
    message = base64.b64decode(encoded)
    text = message.decode()
    challenge, owner = decode_challenge(encoded), AccountId.parse(golden["ownerId"])
    policy = PolicySettings(chains=("eip155:280", "eip155:324")).for_domain(SANDBOX_DOMAIN).to_domain()

    def decode_and_check() -> None:
        read = decode_challenge(encoded)
        policy.check(read, owner, now)
        policy.check_time_left(read, now)

    measured: dict[str, Callable[[], object]] = {
        "decode + policy": decode_and_check,
        "  decode (base64 + parse)": lambda: decode_challenge(encoded),
        "  parse": lambda: parse_challenge(message),
        "    EIP-55 checksum (Keccak)": lambda: checksum_address(challenge.address),
        "  policy": lambda: policy.check(challenge, owner, now),
        "message to sign (Keccak)": challenge.message_to_sign,
        "bare regular expression": lambda: BARE.fullmatch(message),
    }
    figures = {name: least_cpu_us(call, rounds=rounds, calls=1000) for name, call in measured.items()}
    figures["siwe's ABNF parse"] = least_cpu_us(lambda: SiweMessage.from_message(text), rounds=3, calls=10)
    whole = figures["decode + policy"]
    print(f"golden message, {len(message)} bytes\n{'':32} {'µs CPU':>9} {'of decode + policy':>20}")
    for name, figure in figures.items():
        print(f"{name:32} {figure:9.1f} {figure / whole:19.2f}x")
    return whole


def _hostile_table(rounds: int, *, with_siwe: bool) -> float:
    print(f"\nhostile texts, {SIZE} bytes, the maximum size")
    print(f"{'':34} {'µs CPU':>8} {'to half as long':>17} {'verdict':>24}" + ("   siwe µs" if with_siwe else ""))
    figures: dict[str, float] = {}
    half_texts = hostile_texts(SIZE // 2)
    for name, message in hostile_texts().items():
        figures[name] = least_cpu_us(partial(_verdict, message), rounds=rounds, calls=20)
        of_half = least_cpu_us(partial(_verdict, half_texts[name]), rounds=rounds, calls=20)
        line = f"{name:34} {figures[name]:8.1f} {figures[name] / of_half:16.2f}x {_verdict(message):>24}"
        print(line + (f" {_siwe_us(message):9.0f}" if with_siwe else ""))
    return max(figures.values())


def _siwe_us(message: bytes) -> float:
    from siwe import SiweMessage  # noqa: PLC0415 - the import takes a second

    def read() -> None:
        try:
            SiweMessage.from_message(message.decode())
        except (ValueError, TypeError, OverflowError):
            return

    return least_cpu_us(read, rounds=1, calls=1)
