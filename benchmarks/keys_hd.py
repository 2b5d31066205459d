"""Speed of ``hd:``: deriving owners, event loop delay meanwhile, and signatures compared with coincurve."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import uvloop
from coincurve import PrivateKey, PublicKey

from benchmarks.measuring import SLICE_SECONDS, Goals, Pairs, Spent, Stall, for_a_slice
from signer.adapters.keys.hd.backend import write_seed
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.application.ports import SigningKey
from signer.domain.ethereum import self_test_message
from tests.support.fakes.keys import backend_resources

GOAL_KEYS, GOAL_SECONDS = 100_000, 8.0
SIGNING_GOAL = 0.8
OWNERS = 1000
PATHS = {"m/44'/60'/0'/0/*": 1, "m/44'/60'/*'/0/0": 10}
"""Layouts, and the share of the keys that is derived; Ledger Live's is hardened and takes longer."""


def resident() -> float:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def derive(folder: Path, path: str, keys: int, goals: Goals | None) -> None:
    """Print how long a path's owners take, and a reload without changes."""
    backend = backend_for(uri(folder, path, keys), backend_resources())
    spent, stall, before = Spent(keys), Stall(), resident()
    async with stall.watch():
        with spent.watch():
            loaded = await backend.load(lambda _done, _total: None)
    verdict = ""
    if goals is not None and keys >= GOAL_KEYS:
        verdict = goals.check(f"{keys:,} owners, seconds", spent.seconds, GOAL_SECONDS, spent.others, at_most=True)
        verdict = f" ({verdict}: {GOAL_SECONDS:g} s)"
    print(
        f"{path:18} {len(loaded.keys):8,} owners in {spent.seconds:5.2f} s{verdict}, {spent.rate:7,.0f}/s, "
        f"{spent.cpu:.2f} s of CPU, others had {spent.others:.1f} cores; {(resident() - before):4.0f} MiB; "
        f"stalls: p99 {stall.p99:.1f} ms, longest {stall.longest:.1f} ms",
    )
    started = time.perf_counter()
    await backend.load(lambda _done, _total: None)
    print(f"{'':18} the same again {time.perf_counter() - started:.2f} s")
    await backend.close()


async def self_test(folder: Path, keys: int) -> None:
    """Print how long a ring takes, including its self-test."""
    ring, stall = LoadedKeyRing([backend_for(uri(folder, next(iter(PATHS)), keys), backend_resources())]), Stall()
    async with stall.watch():
        started = time.perf_counter()
        await ring.load()
        took = time.perf_counter() - started
    again = Stall()
    async with again.watch():
        await ring.reload()
    print(
        f"a ring of {len(ring.keys()):,} keys ready in {took:.2f} s; "
        f"longest stall {stall.longest:.1f} ms, at a reload that changes nothing {again.longest:.1f} ms",
    )
    await ring.close()


async def sign(folder: Path, rounds: int, goals: Goals) -> None:
    """Print signatures a second of one owner and of many in turn, compared with as many bare keys."""
    ring = LoadedKeyRing([backend_for(uri(folder, next(iter(PATHS)), OWNERS), backend_resources())])
    await ring.load()
    message = self_test_message()
    print(f"{'':24} {'bare/s':>8} {'whole/s':>8} {'bare µs':>8} {'whole µs':>9} {'of bare':>8} {'goal':>6}")
    for owners in (1, OWNERS):
        in_turn = cycle(ring.keys()[:owners])
        secrets_in_turn = cycle([PrivateKey(number.to_bytes(32)) for number in range(1, owners + 1)])

        async def bare(secrets_in_turn: Iterator[PrivateKey] = secrets_in_turn) -> None:
            signature = next(secrets_in_turn).sign_recoverable(message.digest, hasher=None)
            PublicKey.from_signature_and_message(signature, message.digest, hasher=None).format(compressed=False)

        async def whole(in_turn: Iterator[SigningKey] = in_turn) -> None:
            await next(in_turn).sign(message)

        pairs = Pairs()
        for _ in range(rounds):
            await pairs.take(partial(for_a_slice, bare, 1), partial(for_a_slice, whole, 1))
        # One thread that never waits: CPU time gives the rate, even if other programs use the core.
        name = "one owner" if owners == 1 else f"{owners:,} owners in turn"
        verdict = goals.check(f"{name}, of bare", pairs.cpu_ratio, SIGNING_GOAL, pairs.others)
        print(
            f"{name:24} {pairs.of(lambda bare, _: bare.rate):8,.0f} {pairs.of(lambda _, whole: whole.rate):8,.0f} "
            f"{pairs.of(lambda bare, _: bare.cpu_us):8.1f} {pairs.of(lambda _, whole: whole.cpu_us):9.1f} "
            f"{pairs.cpu_ratio:8.2f} {verdict:>6}",
        )
    await ring.close()


def uri(folder: Path, path: str, keys: int) -> str:
    """Return the key URI of ``keys`` owners."""
    return f"hd:{folder}/seed.json?password_file={folder}/password&path={path}&indexes=0-{keys - 1}"


def main(argv: Sequence[str]) -> int:
    """Run the benchmark and return its exit status, which tells whether the goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks keys_hd", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000, help=f"owners (goal: 100,000 in {GOAL_SECONDS:g} s)")
    parser.add_argument("--rounds", type=int, default=8, help=f"of {SLICE_SECONDS} s, for each of bare and whole")
    arguments = parser.parse_args(argv)
    goals = Goals()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_seed(folder / "seed.json", bytes(range(64)), b"password", work=2)
        (folder / "password").write_bytes(b"password")
        for path, part in PATHS.items():
            uvloop.run(derive(folder, path, arguments.keys // part, goals if part == 1 else None))
        uvloop.run(sign(folder, arguments.rounds, goals))
        uvloop.run(self_test(folder, arguments.keys))
    return goals.tell()
