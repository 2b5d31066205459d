"""What a PKCS #11 token signs through backend, ring and finisher, beside the bare binding; when a full one is ready.

A SoftHSM token is made for the run. Bare and whole take turns, a slice each, so that a busy machine slows both. The
bare binding is the same ctypes calls in as many threads as there are sessions, with nothing around them. A stall is how
much later than it should a timer of the event loop goes off.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import uvloop

from signer.adapters.keys._cryptoki_names import CKO_PRIVATE_KEY, Cka
from signer.adapters.keys._ec_keys import SECP256K1
from signer.adapters.keys._pkcs11_provisioning import open_token
from signer.adapters.keys.backend import BackendResources
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.domain.ethereum import self_test_message
from tests.softhsm import SoftHsmToken, folder_in_memory, softhsm

SLICE_SECONDS = 0.5
CALLERS_PER_SESSION = 8
TICK_SECONDS = 0.001
GOALS = {1: 0.85}
GOAL = 0.7
READY_GOAL_SECONDS = 3.0
ONE_KEY_SLICES = 8


@dataclass(slots=True)
class Tally:
    """Signatures, and what they took, over several slices."""

    signatures: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Signatures a second."""
        return self.signatures / self.seconds

    @property
    def cpu_us(self) -> float:
        """The process's CPU for each, in µs."""
        return self.cpu / self.signatures * 1e6

    async def take(self, work: Callable[[], Awaitable[int]]) -> None:
        """Add a slice."""
        cpu, started = time.process_time(), time.perf_counter()
        self.signatures += await work()
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - cpu


@dataclass(slots=True)
class Stall:
    """The longest that the event loop was kept from a timer, in milliseconds."""

    longest: float = 0.0

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Watch while the body runs."""

        async def tick() -> None:
            while True:
                started = time.perf_counter()
                await asyncio.sleep(TICK_SECONDS)
                self.longest = max(self.longest, (time.perf_counter() - started - TICK_SECONDS) * 1e3)

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()


def sign_bare(token: SoftHsmToken, sessions: int) -> int:
    """Sign with as many threads as sessions for one slice; give how many signatures."""
    digest = self_test_message().digest
    counts: list[int] = []
    with open_token(token.uri(), writable=False) as opened:
        [slot] = [s for s in opened.cryptoki.slots() if opened.cryptoki.token_info(s).label == token.label.encode()]
        [handle, *_] = opened.cryptoki.find_objects(opened.session, {Cka.CLASS: CKO_PRIVATE_KEY})
        numbers = [opened.cryptoki.open_session(slot) for _ in range(sessions)]
        ends = time.perf_counter() + SLICE_SECONDS

        def sign(session: int) -> None:
            count = 0
            while time.perf_counter() < ends:
                opened.cryptoki.sign(session, handle, digest, SECP256K1.signature_bytes)
                count += 1
            counts.append(count)
            opened.cryptoki.close_session(session)

        threads = [threading.Thread(target=sign, args=(number,)) for number in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts)


async def sign_whole(ring: LoadedKeyRing, sessions: int, owners: int = 1) -> int:
    """Sign through the ring with many callers for one slice; give how many signatures."""
    message = self_test_message()
    keys = ring.keys()[:owners]
    ends = time.perf_counter() + SLICE_SECONDS
    count = 0

    async def call(number: int) -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await keys[(number + count) % len(keys)].sign(message)
            count += 1

    await asyncio.gather(*(call(number) for number in range(sessions * CALLERS_PER_SESSION)))
    return count


async def compare(token: SoftHsmToken, sessions: int, slices: int) -> None:
    """Print one line for so many sessions."""
    bare, whole, stall = Tally(), Tally(), Stall()
    ring = LoadedKeyRing([backend_for(token.uri(x_sessions=sessions), BackendResources())])
    await ring.load()
    for _ in range(slices):
        await bare.take(lambda: asyncio.to_thread(sign_bare, token, sessions))
        async with stall.watch():
            await whole.take(lambda: sign_whole(ring, sessions))
    await ring.close()
    print(
        f"{sessions:8} {bare.rate:10,.0f} {whole.rate:10,.0f} {whole.rate / bare.rate:7.2f} "
        f"{GOALS.get(sessions, GOAL):6.2f} {bare.cpu_us:10.0f} {whole.cpu_us:10.0f} {stall.longest:12.1f}",
    )


async def fill(token: SoftHsmToken, keys: int, slices: int) -> None:
    """Print when a token of so many keys is ready, and what it signs then."""
    for self_test in (False, True):
        stall = Stall()
        ring = LoadedKeyRing([backend_for(token.uri(), BackendResources())], self_test=self_test)
        async with stall.watch():
            started = time.perf_counter()
            await ring.load()
            ready = time.perf_counter() - started
        tested = "each has signed" if self_test else "none has signed but one"
        print(f"{len(ring.keys()):,} keys ready in {ready:.2f} s ({tested}); longest stall {stall.longest:.1f} ms")
        if self_test:
            one, many, again = Tally(), Tally(), Stall()
            for _ in range(slices):
                await one.take(partial(sign_whole, ring, 4))
                await many.take(partial(sign_whole, ring, 4, keys))
            async with again.watch():
                started = time.perf_counter()
                await ring.reload()
            print(f"signatures/s with one of them {one.rate:,.0f}, with all in turn {many.rate:,.0f}")
            print(f"reload in {time.perf_counter() - started:.2f} s; longest stall {again.longest:.1f} ms")
        await ring.close()


def main(argv: Sequence[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks keys_pkcs11", description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 4, 8], help="how many, one line each")
    parser.add_argument("--slices", type=int, default=6, help=f"of {SLICE_SECONDS} s, for each of bare and whole")
    parser.add_argument("--keys", type=int, default=0, help="also fill a token with so many keys, and load it")
    arguments = parser.parse_args(argv)
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        token = hsm.add_token("one key")
        token.put(secrets.token_bytes(32), "owner")
        heads = ("sessions", "bare/s", "whole/s", "ratio", "goal", "bare µs", "whole µs", "stall ms")
        print("{:>8} {:>10} {:>10} {:>7} {:>6} {:>10} {:>10} {:>12}".format(*heads))
        for sessions in arguments.sessions:
            uvloop.run(compare(token, sessions, arguments.slices))
        if arguments.keys:
            full = hsm.add_token("many keys")
            started = time.perf_counter()
            full.put_many([secrets.token_bytes(32) for _ in range(arguments.keys)])
            print(f"{arguments.keys:,} keys put into a token in {time.perf_counter() - started:.0f} s")
            uvloop.run(fill(full, arguments.keys, arguments.slices))
    return 0
