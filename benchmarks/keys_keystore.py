"""Signatures of a key in memory compared with bare libsecp256k1, and opening keystores compared with bare scrypt.

Signing: bare and whole take turns, a slice each, and the calmer half of the rounds counts (``measuring``). Bare is
coincurve's sign and its recovery of the public key, which is what makes a signature safe to hand out, and nothing else.

Opening: N keystores of the usual strength through the backend. In the same run, before and after them, bare key
derivations in one thread for each core, all at once: the goal compares with these. The time of one thread, divided by
the cores, stands beside it; no machine reaches that if its cores share their memory. ``others`` is how many cores other
programs had meanwhile. A stall is the delay of a timer of the event loop.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop
from coincurve import PrivateKey, PublicKey

from benchmarks.measuring import CALM, Goals, Pairs, Spent, Stall, for_a_slice
from signer.adapters.clock import SystemClock
from signer.adapters.keys.in_memory_key import InMemoryKey
from signer.adapters.keys.opening_pool import available_cores
from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.settings import KeysSettings
from signer.bootstrap.keys import open_keys
from signer.domain.ethereum import self_test_message
from tests.contract.key_backends.doubles import GivenBackend
from tests.support.strong_keystores import derive, write_strong_keystores

SIGNING_GOAL = 0.8
OPENING_GOAL = 1.15
MEMORY_EACH_MIB = 257
MOST_BESIDE = 120
"""The most bare key derivations of one round, before and after together."""


async def signing(rounds: int, goals: Goals) -> None:
    """Print the signatures of one key."""
    secret, message = secrets.token_bytes(32), self_test_message()
    bare_key, ring = PrivateKey(secret), LoadedKeyRing([GivenBackend([InMemoryKey(secret, "given:1")])])
    await ring.load()
    [loaded] = ring.keys()

    async def bare() -> None:
        signature = bare_key.sign_recoverable(message.digest, hasher=None)
        PublicKey.from_signature_and_message(signature, message.digest, hasher=None).format(compressed=False)

    async def whole() -> None:
        key = ring.find(loaded.address)
        assert key is not None
        await key.sign(message)

    pairs = Pairs()
    for _ in range(rounds):
        await pairs.take(partial(for_a_slice, bare, 1), partial(for_a_slice, whole, 1))
    # One thread that never waits: CPU time gives the rate, even if other programs use the core.
    verdict = goals.check("one key in memory, of bare", pairs.cpu_ratio, SIGNING_GOAL, pairs.others)
    print(f"{'one key in memory':34} {'signatures/s':>12} {'µs CPU each':>12}")
    for name, which in (("bare sign and recover", 0), ("through the ring", 1)):
        rate, cpu = (pairs.of(lambda *pair, n=which: pair[n].rate), pairs.of(lambda *pair, n=which: pair[n].cpu_us))
        print(f"{name:34} {rate:12,.0f} {cpu:12.1f}")
    print(f"by CPU {pairs.cpu_ratio:.2f} of bare, by the clock {pairs.ratio:.2f} ({verdict}: {SIGNING_GOAL})")


@dataclass(slots=True)
class Opening:
    """The cost of opening keystores, with the costs to compare it with."""

    one_thread: Spent = field(default_factory=Spent)
    bare: Spent = field(default_factory=Spent)
    whole: Spent = field(default_factory=Spent)
    again: Spent = field(default_factory=Spent)
    stall: Stall = field(default_factory=Stall)


async def opening(count: int, rounds: int, goals: Goals) -> None:
    """Print the cost of opening as a multiple of the bare key derivation."""
    cores, spent = available_cores(), Opening()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            place = Path(folder) / str(number)
            place.mkdir()
            await one_round(place, (number + 1) * count // rounds - number * count // rounds, cores, spent)
    bare = 1 / spent.bare.rate
    rows = {
        "key derivation, one thread, / cores": (spent.one_thread, 1 / spent.one_thread.rate / cores),
        "key derivation, a thread each core": (spent.bare, bare),
        "opened by the backend": (spent.whole, 1 / spent.whole.rate),
    }
    heads = (f"{count} keystores, {cores} cores", "seconds", "each", "CPU each", "of bare", "others")
    print("\n{:36} {:>8} {:>8} {:>9} {:>8} {:>7}".format(*heads))
    for name, (each, seconds) in rows.items():
        cells = f"{seconds * count:8.2f} {seconds:7.3f}s {each.cpu_us / 1e6:8.3f}s {seconds / bare:7.2f}x"
        print(f"{name:36} {cells} {each.others:7.1f}")
    print(f"{'reloaded, unchanged':36} {spent.again.seconds:8.3f}")
    print(f"stalls of the event loop while opening: p99 {spent.stall.p99:.1f} ms, longest {spent.stall.longest:.1f} ms")
    by_clock, by_cpu = 1 / spent.whole.rate / bare, spent.whole.cpu_us / spent.bare.cpu_us
    others = max(spent.whole.others, spent.bare.others)
    # A run of minutes is rarely undisturbed. If other programs used more than CALM cores, CPU time is compared.
    multiple = by_clock if others <= CALM else by_cpu
    verdict = goals.check(f"{count} keystores, of bare", multiple, OPENING_GOAL, others, at_most=True)
    print(f"by the clock {by_clock:.2f} of bare, by CPU {by_cpu:.2f} ({verdict}: at most {OPENING_GOAL})")


async def one_round(place: Path, count: int, cores: int, spent: Opening) -> None:
    """Measure bare derivations, opening, and bare derivations again."""
    password, salt = secrets.token_bytes(24).hex().encode(), secrets.token_bytes(32)
    directory, password_file = place / "keys", place / "password"
    directory.mkdir()
    password_file.write_bytes(password)
    write_strong_keystores(directory, count, password)
    uri = f"keystore:{directory}?password_file={password_file}"

    async def derive_bare(threads: int, times: int) -> Spent:
        bare = Spent(times)
        with bare.watch(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: derive(password, salt), range(times)))
        return bare

    beside = max(cores, min(count, MOST_BESIDE) // 2 // cores * cores)
    spent.one_thread += await derive_bare(1, 1)
    spent.bare += await derive_bare(cores, beside)
    settings = KeysSettings(uris=(uri,), open_memory=cores * MEMORY_EACH_MIB, self_test=False)
    async with open_keys(settings, SystemClock()) as keys:
        whole, again = Spent(count), Spent(count)
        async with spent.stall.watch():
            with whole.watch():
                await keys.ring.load()
        assert keys.ring.status().loaded == count
        with again.watch():
            await keys.ring.reload()
    spent.whole += whole
    spent.again += again
    spent.bare += await derive_bare(cores, beside)


async def run(keystores: int, opening_rounds: int, signing_rounds: int) -> int:
    """Run both parts and return the exit status."""
    goals = Goals()
    await signing(signing_rounds, goals)
    await opening(keystores, opening_rounds, goals)
    return goals.tell()


def main(argv: Sequence[str]) -> int:
    """Run the benchmark and return its exit status, which tells whether a goal was missed."""
    options = argparse.ArgumentParser(prog="python -m benchmarks keys_keystore", description=__doc__)
    options.add_argument("--keystores", type=int, default=24, help="how many are opened; 1000 take minutes")
    options.add_argument("--opening-rounds", type=int, default=3, help="in how many turns they are opened")
    options.add_argument("--rounds", type=int, default=12, help="of signing, a slice each")
    asked = options.parse_args(argv)
    return uvloop.run(run(asked.keystores, asked.opening_rounds, asked.rounds))
