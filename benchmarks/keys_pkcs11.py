"""Signatures a second of a PKCS #11 token through backend, ring and finisher, compared with the bare binding.

Also the time until a token of 10,000 keys is ready. The run creates SoftHSM tokens. *Bare* is the same ctypes calls in
one thread for each session. Bare and whole take turns in slices, and the calmer half of the rounds counts
(``measuring``); ``others`` is how many cores other programs had. A stall is the delay of a timer of the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import threading
import time
from collections.abc import Sequence
from functools import partial

import uvloop

from benchmarks.measuring import SLICE_SECONDS, Goals, Pairs, Spent, Stall
from signer.adapters.curves import SECP256K1
from signer.adapters.keys.pkcs11.cryptoki.constants import CKO_PRIVATE_KEY, Cka
from signer.adapters.keys.pkcs11.provisioning import open_token
from signer.adapters.keys.pkcs11.uri import SESSIONS
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.domain.ethereum import self_test_message
from tests.support.fakes.keys import backend_resources
from tests.support.softhsm import SoftHsmToken, folder_in_memory, softhsm

CALLERS_PER_SESSION = 8
GOALS = {1: 0.85}
GOAL = 0.7
READY_GOAL_SECONDS = 3.0
LOADS = 3
ONE_KEY_GOAL = 0.95
"""The rate of all keys of a full token in turn, as a share of the rate of one key."""


def sign_bare(token: SoftHsmToken, sessions: int) -> int:
    """Sign for one slice with one thread for each session; return the number of signatures."""
    digest = self_test_message().digest
    counts: list[int] = []
    with open_token(token.uri(), writable=False) as opened:
        [slot] = [s for s in opened.cryptoki.slots() if opened.cryptoki.describe_token(s).label == token.label.encode()]
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
    """Sign for one slice through the ring with many callers; return the number of signatures."""
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


async def compare(token: SoftHsmToken, sessions: int, rounds: int, goals: Goals) -> None:
    """Print the line for a number of sessions."""
    pairs, stall = Pairs(), Stall()
    ring = LoadedKeyRing([backend_for(token.uri(x_sessions=sessions), backend_resources())])
    await ring.load()

    async def whole() -> int:
        async with stall.watch():
            return await sign_whole(ring, sessions)

    for _ in range(rounds):
        await pairs.take(lambda: asyncio.to_thread(sign_bare, token, sessions), whole)
    await ring.close()
    goal = GOALS.get(sessions, GOAL)
    verdict = goals.check(f"{sessions} sessions, of bare", pairs.ratio, goal, pairs.others)
    print(
        f"{sessions:8} {pairs.of(lambda bare, _: bare.rate):9,.0f} {pairs.of(lambda _, whole: whole.rate):9,.0f} "
        f"{pairs.ratio:6.2f} {goal:6.2f} {verdict:>7} "
        f"{pairs.of(lambda bare, _: bare.cpu_us):8.0f} {pairs.of(lambda _, whole: whole.cpu_us):9.0f} "
        f"{pairs.cpu_ratio:6.2f} {pairs.others:7.1f} {stall.p99:9.1f} {stall.longest:9.1f}",
    )


async def load(token: SoftHsmToken, keys: int, stall: Stall) -> Spent:
    """Load a token once, from C_Initialize to C_Finalize; return the cost until its keys were ready."""
    ring, spent = LoadedKeyRing([backend_for(token.uri(), backend_resources())]), Spent(keys)
    async with stall.watch():
        with spent.watch():
            await ring.load()
    assert len(ring.keys()) == keys
    await ring.close()
    return spent


async def measure_full_token(token: SoftHsmToken, keys: int, rounds: int, goals: Goals) -> None:
    """Print how long a token with many keys takes to load and to reload, and its signatures a second."""
    stall = Stall()
    loads = [await load(token, keys, stall) for _ in range(LOADS)]
    ready = min(loads, key=lambda spent: spent.seconds)  # other load can only add to it
    what = f"{keys:,} keys ready, seconds"
    verdict = goals.check(what, ready.seconds, READY_GOAL_SECONDS, ready.others, at_most=True)
    print(
        f"{keys:,} keys ready in {ready.seconds:.2f} s ({verdict}: {READY_GOAL_SECONDS:g} s), the quickest of {LOADS}; "
        f"{ready.cpu:.2f} s of CPU, others had {ready.others:.1f} cores; longest stall {stall.longest:.1f} ms",
    )
    ring = LoadedKeyRing([backend_for(token.uri(), backend_resources())])
    await ring.load()
    pairs, again, stall = Pairs(), Spent(keys), Stall()
    for _ in range(rounds):
        await pairs.take(partial(sign_whole, ring, SESSIONS), partial(sign_whole, ring, SESSIONS, keys))
    verdict = goals.check(f"{keys:,} keys in turn, of one", pairs.ratio, ONE_KEY_GOAL, pairs.others)
    print(
        f"signatures/s with one of them {pairs.of(lambda one, _: one.rate):,.0f}, "
        f"with all in turn {pairs.of(lambda _, many: many.rate):,.0f}: {pairs.ratio:.2f} ({verdict}: {ONE_KEY_GOAL})",
    )
    async with stall.watch():
        with again.watch():
            await ring.reload()
    print(f"reload in {again.seconds:.2f} s, {again.cpu:.2f} s of CPU; longest stall {stall.longest:.1f} ms")
    await ring.close()


def main(argv: Sequence[str]) -> int:
    """Run it; the exit status is 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks keys_pkcs11", description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 4, 8], help="how many, one line each")
    parser.add_argument(
        "--rounds", type=int, default=16, help=f"each is {SLICE_SECONDS} s of bare and as long of whole"
    )
    parser.add_argument("--keys", type=int, default=10_000, help="also fill a token with so many keys, and load it")
    arguments = parser.parse_args(argv)
    goals = Goals()
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        token = hsm.add_token("one key")
        token.put(secrets.token_bytes(32), "owner")
        print("sessions    bare/s   whole/s  ratio   goal verdict  bare µs  whole µs  ratio  others stall p99 longest")
        for sessions in arguments.sessions:
            uvloop.run(compare(token, sessions, arguments.rounds, goals))
        if arguments.keys:
            full = hsm.add_token("many keys")
            started = time.perf_counter()
            full.put_many([secrets.token_bytes(32) for _ in range(arguments.keys)])
            print(f"{arguments.keys:,} keys put into a token in {time.perf_counter() - started:.0f} s")
            uvloop.run(measure_full_token(full, arguments.keys, arguments.rounds, goals))
    return goals.tell()
