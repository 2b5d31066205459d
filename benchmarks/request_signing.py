"""What a request to the card API costs to sign, beside its bare P-384 signature: AWS-LC, OpenSSL, and a SoftHSM token.

Bare and whole take turns, a slice each, so that a busy machine slows both. Bare is the key's own call, awaited; whole
is all headers of a delivery: digest of the body, signature base, signature. Keys in memory sign for one caller on the
event loop; the token's, whose threads want company, for eight a session. A stall is how much later than it should a
timer of the event loop goes off while the token signs.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.measuring import Stall, Tally
from signer.adapters.keys.pkcs11.curves import P384
from signer.adapters.keys.pkcs11.provisioning import generate_key
from signer.adapters.request_signing.local_key import LocalRequestKey, request_key_from_pem
from signer.adapters.request_signing.pkcs11_key import open_pkcs11_request_key
from signer.adapters.request_signing.request_key import RequestKey
from signer.adapters.request_signing.signer import MessageSigner, SignatureProfile
from tests.support.softhsm import folder_in_memory, softhsm

SESSIONS = 4
CALLERS_PER_SESSION = 8
BASE: Final = b"a signature base, as long as they are".ljust(700, b".")
DELIVERY: Final[dict[str, Any]] = {
    "method": "POST",
    "authority": "api.sandbox.offblocks.xyz",
    "path": "/v1/customers/04c5851c-4386-5bd9-9f89-08312f8aee3a/challenge/sign",
    "query": "",
    "headers": {
        "Accept": "application/json",
        "Authorization": f"Bearer {'x' * 300}",
        "Content-Type": "application/json",
        "Idempotency-Key": "123e4567-e89b-12d3-a456-426614174000",
        "User-Agent": "challenge-signer/0",
    },
    "body": b"x" * 900,
}


class NoKey:
    """Signs nothing: what is left is the work around a signature."""

    keyid = "none"

    async def sign(self, base: bytes) -> bytes:
        """Give as many bytes as a signature has."""
        del base
        return bytes(96)

    def unavailable_for(self) -> None:
        """Never."""


async def compare(name: str, key: RequestKey, callers: int, slices: int) -> None:
    """Print one line for a key."""
    signer = MessageSigner(SignatureProfile(), key, lambda: 1_700_000_000)
    ways: tuple[Callable[[], Awaitable[object]], ...] = (lambda: key.sign(BASE), lambda: signer.headers_for(**DELIVERY))
    tallies, stall = (Tally(), Tally()), Stall()
    async with stall.watch():
        for _ in range(slices):
            for tally, sign in zip(tallies, ways, strict=True):
                await tally.take(sign, callers=callers)
    bare, whole = tallies
    longest = f"{stall.longest:10.1f}" if callers > 1 else f"{'-':>10}"  # one caller in memory does not let a timer in
    print(f"{name:24} {bare.rate:10,.0f} {whole.rate:10,.0f} {bare.cpu_us:10.1f} {whole.cpu_us:10.1f} {longest}")


async def run(slices: int) -> None:
    """Print the table."""
    private = ec.generate_private_key(ec.SECP384R1())
    local = request_key_from_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "key-1")
    heads = ("key", "bare/s", "whole/s", "bare µs", "whole µs", "stall ms")
    print("{:24} {:>10} {:>10} {:>10} {:>10} {:>10}".format(*heads))
    await compare("none", NoKey(), 1, slices)
    await compare(f"file, {local.library}", local, 1, slices)
    await compare("file, OpenSSL", LocalRequestKey(private, "key-1"), 1, slices)
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        token = hsm.add_token("requests")
        uri = token.uri(";object=requests", x_sessions=SESSIONS)
        await asyncio.to_thread(generate_key, uri, curve=P384)
        key = await open_pkcs11_request_key(uri, "key-1")
        await compare(f"SoftHSM, {SESSIONS} sessions", key, SESSIONS * CALLERS_PER_SESSION, slices)
        await key.close()


def main(argv: Sequence[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks request_signing", description=__doc__)
    parser.add_argument("--slices", type=int, default=6, help="of half a second, for each of bare and whole")
    uvloop.run(run(parser.parse_args(argv).slices))
    return 0
