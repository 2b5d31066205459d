"""What a keystore's key signs through the ring, beside bare libsecp256k1; what opening costs beside bare scrypt.

Signing: bare and whole take turns, a slice each, so that a busy machine slows both. Bare is coincurve's sign and its
recovery of the public key, which is what makes a signature safe to hand out, and nothing else.

Opening: N keystores of the usual strength through the backend, beside N bare key derivations in as many threads, in
turns, too; and beside one thread's time for them divided by the cores, which no machine reaches whose cores share
their memory. A stall is how much later than it should a timer of the event loop goes off meanwhile.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import uvloop
from coincurve import PrivateKey, PublicKey

from benchmarks.measuring import Stall, Tally
from signer.adapters.clock import SystemClock
from signer.adapters.keys._local_key import LocalKey
from signer.adapters.keys.opening_pool import available_cores
from signer.adapters.keys.ring import LoadedKeyRing
from signer.bootstrap_keys import open_keys
from signer.config.sections import KeysSettings
from signer.domain.ethereum import self_test_message
from tests.contract.key_backends.doubles import GivenBackend
from tests.strong_keystores import derive, write_strong_keystores

SIGNING_GOAL = 0.8
OPENING_GOAL = 1.15
MEMORY_EACH_MIB = 257


async def signing(slices: int) -> float:
    """Print the table; gives the whole's rate as a share of the bare one's."""
    secret, message = secrets.token_bytes(32), self_test_message()
    bare_key, ring = PrivateKey(secret), LoadedKeyRing([GivenBackend([LocalKey(secret, "given:1")])])
    await ring.load()
    [loaded] = ring.keys()

    async def bare() -> None:
        signature = bare_key.sign_recoverable(message.digest, hasher=None)
        PublicKey.from_signature_and_message(signature, message.digest, hasher=None).format(compressed=False)

    async def whole() -> None:
        key = ring.find(loaded.address)
        assert key is not None
        await key.sign(message)

    tallies = {"bare sign and recover": Tally(), "through the ring": Tally()}
    for _ in range(slices):
        for tally, sign in zip(tallies.values(), (bare, whole), strict=True):
            await tally.take(sign, callers=1)
    print(f"{'one key in memory':34} {'signatures/s':>12} {'µs CPU each':>12}")
    for name, tally in tallies.items():
        print(f"{name:34} {tally.rate:12,.0f} {tally.cpu_us:12.1f}")
    bare_tally, whole_tally = tallies.values()
    return bare_tally.cpu_us / whole_tally.cpu_us


@dataclass(slots=True)
class Spent:
    """Time on key derivations: wall and CPU, in seconds, and for how many."""

    wall: float = 0.0
    cpu: float = 0.0
    count: int = 0

    async def take(self, work: Awaitable[None], count: int) -> None:
        """Add some."""
        began, cpu = time.perf_counter(), time.process_time()
        await work
        self.wall += time.perf_counter() - began
        self.cpu += time.process_time() - cpu
        self.count += count


async def opening(count: int, rounds: int) -> float:
    """Print the table; gives the whole's time as a multiple of the bare key derivations' in as many threads."""
    cores = available_cores()
    one_thread, bare, whole, again = Spent(), Spent(), Spent(), Spent()
    stall = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            place = Path(folder) / str(number)
            place.mkdir()
            share = (number + 1) * count // rounds - number * count // rounds
            longest = await one_round(place, share, cores, (one_thread, bare, whole, again))
            stall = max(stall, longest)
    title = f"{count} keystores, {cores} cores"
    print(f"\n{title:42} {'seconds':>8} {'CPU each':>9} {'of one thread':>14} {'of bare':>8}")
    ideal = one_thread.wall / one_thread.count * count / cores
    rows = {
        "key derivation, one thread, / cores": (ideal, one_thread),
        "bare key derivation, a thread each core": (bare.wall, bare),
        "opened by the backend": (whole.wall, whole),
    }
    for name, (wall, spent) in rows.items():
        cells = f"{spent.cpu / spent.count:8.3f}s {wall / ideal:13.2f}x {wall / bare.wall:7.2f}x"
        print(f"{name:42} {wall:8.2f} {cells}")
    print(f"{'reloaded, unchanged':42} {again.wall:8.3f}")
    print(f"longest stall of the event loop while opening: {stall:.1f} ms")
    return whole.wall / bare.wall


async def one_round(place: Path, count: int, cores: int, spent: tuple[Spent, Spent, Spent, Spent]) -> float:
    """Derive bare and open whole, one after the other; gives the longest stall of the loop while opening, in ms."""
    one_thread, bare, whole, again = spent
    password, salt = secrets.token_bytes(24).hex().encode(), secrets.token_bytes(32)
    directory, password_file = place / "keys", place / "password"
    directory.mkdir()
    password_file.write_bytes(password)
    write_strong_keystores(directory, count, password)
    uri = f"keystore:{directory}?password_file={password_file}"

    async def derive_bare(threads: int, times: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: derive(password, salt), range(times)))

    await one_thread.take(derive_bare(1, 1), 1)
    await bare.take(derive_bare(cores, count), count)
    settings = KeysSettings(uris=(uri,), open_memory=cores * MEMORY_EACH_MIB, self_test=False)
    async with open_keys(settings, SystemClock()) as keys:
        stall = Stall()
        async with stall.watch():
            await whole.take(keys.ring.load(), count)
        assert keys.ring.status().loaded == count

        async def reload() -> None:
            await keys.ring.reload()

        await again.take(reload(), count)
        return stall.longest


async def run(keystores: int, rounds: int, slices: int) -> bool:
    """Run both; tell whether both goals were kept."""
    share = await signing(slices)
    multiple = await opening(keystores, rounds)
    print(f"\ngoals: signing {share:.2f} of bare (at least {SIGNING_GOAL})", end="")
    print(f", opening {multiple:.2f} of bare (at most {OPENING_GOAL})")
    return share >= SIGNING_GOAL and multiple <= OPENING_GOAL


def main(argv: Sequence[str]) -> int:
    """Print the tables; the exit status says whether the goals were kept."""
    options = argparse.ArgumentParser(prog="python -m benchmarks keys_keystore", description=__doc__)
    options.add_argument("--keystores", type=int, default=24, help="how many are opened; 1000 take minutes")
    options.add_argument("--rounds", type=int, default=4, help="in how many turns they are opened")
    options.add_argument("--slices", type=int, default=8, help="slices of each kind of signing")
    asked = options.parse_args(argv)
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    return 0 if uvloop.run(run(asked.keystores, asked.rounds, asked.slices)) else 1
