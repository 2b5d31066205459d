"""Signatures of ``awskms:`` through backend, ring and finisher, compared with the bare SDK with and without retries.

KMS is the tests' server, which repeats its answers, so that the caller is what is measured: in AWS a signature takes
10 to 30 ms, and a replica's rate is what ``max_concurrency`` and the account's quota let through. Bare and whole take
turns, a slice each, so that a busy machine slows all.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import uvloop
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

from benchmarks.measuring import SLICE_SECONDS, Spent, measure_slice
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.domain.ethereum import self_test_message
from tests.support.fakes.keys import backend_resources
from tests.support.kms_server import CREDENTIALS, REGION, kms_server

RETRIES = {
    "bare, SDK's default retries": None,
    "bare, standard retries": {"mode": "standard"},
    "bare, no retries": {"mode": "standard", "total_max_attempts": 1},
}
WHOLE = "backend, ring and finisher"


async def compare(concurrency: int, slices: int) -> None:
    """Print a line for each client."""
    server = kms_server()
    key_id, endpoint = server.new_key(), server.open(cached=True)
    message = self_test_message()
    async with AsyncExitStack() as stack:
        ways = {}
        for name, retries in RETRIES.items():
            config = AioConfig(max_pool_connections=concurrency, retries=retries)
            client = await stack.enter_async_context(
                AioSession().create_client("kms", region_name=REGION, endpoint_url=endpoint.url, config=config),
            )
            ways[name] = partial(
                client.sign,
                KeyId=key_id,
                Message=message.digest,
                MessageType="DIGEST",
                SigningAlgorithm="ECDSA_SHA_256",
            )
        backend = backend_for(endpoint.uri(key_id, max_concurrency=str(concurrency)), backend_resources())
        ring = LoadedKeyRing([backend])
        await ring.load()
        stack.push_async_callback(ring.close)
        ways[WHOLE] = partial(ring.keys()[0].sign, message)
        spent = {name: Spent() for name in ways}
        for _ in range(slices):
            for name, sign in ways.items():
                spent[name] += await measure_slice(sign, concurrency)
    bare = min(each.cpu_us for name, each in spent.items() if name != WHOLE)
    for name, each in spent.items():
        print(f"{name:30} {each.rate:10,.0f} {each.cpu_us:10,.0f} {bare / each.cpu_us:7.2f}")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks keys_awskms", description=__doc__)
    parser.add_argument("--concurrency", type=int, default=10, help="callers, and max_concurrency")
    parser.add_argument("--slices", type=int, default=10, help=f"of {SLICE_SECONDS} s, for each way")
    arguments = parser.parse_args(argv)
    os.environ.update(CREDENTIALS)
    print(f"{arguments.concurrency:3} at once {'signatures/s':>30} {'CPU µs':>10} {'of bare':>7}")
    uvloop.run(compare(arguments.concurrency, arguments.slices))
    return 0
