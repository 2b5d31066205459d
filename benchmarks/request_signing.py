"""The cost of signing a request to the card API, compared with its bare P-384 signature and with another library.

The first table compares the bare signature (the key's own call) with all headers of a delivery (digest of the body,
signature base, signature) for AWS-LC, OpenSSL and a SoftHSM token. Keys in memory sign for one caller on the event
loop, the token for eight callers a session. A stall is the delay of a timer of the event loop while the token signs.

The second table compares our signer with the library http-message-signatures: the same request, components and OpenSSL
key. Without a key, a constant takes the place of the signature, so that only the work around it remains.

What is compared takes turns in slices, so that other load on the machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ECDSA_P384_SHA384

from benchmarks.measuring import Pairs, Spent, Stall, for_a_slice, measure_slice
from signer.adapters.curves import P384
from signer.adapters.keys.pkcs11.provisioning import generate_key
from signer.adapters.request_signing.local_key import LocalRequestKey, request_key_from_pem
from signer.adapters.request_signing.pkcs11_key import open_pkcs11_request_key
from signer.adapters.request_signing.profile import SignatureProfile
from signer.adapters.request_signing.request_key import RequestKey
from signer.adapters.request_signing.signer import MessageSigner
from tests.support.softhsm import folder_in_memory, softhsm

SESSIONS = 4
CALLERS_PER_SESSION = 8
CREATED: Final = 1_700_000_000
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
    """Returns a constant, so that only the work around a signature remains."""

    keyid = "none"
    signs_at_once = True

    async def sign(self, base: bytes) -> bytes:
        """Return as many bytes as a signature has."""
        del base
        return bytes(96)

    def unavailable_for(self) -> None:
        """See ``RequestKey.unavailable_for``."""


class NoAlgorithm(ECDSA_P384_SHA384):
    """The same for the library."""

    def sign(self, message: bytes) -> bytes:
        """Return as many bytes as a signature has."""
        del message
        return bytes(96)


@dataclass(slots=True)
class Message:
    """A request with the attributes that the library reads."""

    method: str = DELIVERY["method"]
    url: str = f"https://{DELIVERY['authority']}{DELIVERY['path']}"
    headers: dict[str, str] = field(default_factory=lambda: dict(DELIVERY["headers"]))


def library_signer(private: ec.EllipticCurvePrivateKey, algorithm: type[ECDSA_P384_SHA384]) -> Callable[[], None]:
    """Return a function that signs the delivery with the library."""
    keys = MappingKeyResolver(public_keys={}, private_keys={"key-1": private})
    signer = HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=keys)
    created = dt.datetime.fromtimestamp(CREATED, dt.UTC)
    covered = SignatureProfile().covered_components

    def sign() -> None:
        body: bytes = DELIVERY["body"]
        signer.sign(Message(), key_id="key-1", created=created, label="sig1", covered_component_ids=covered, body=body)

    return sign


async def compare_with_library(name: str, key: RequestKey, library: Callable[[], None], rounds: int) -> None:
    """Print one line for a key: CPU and rate of our signer and of the library."""
    signer = MessageSigner(SignatureProfile(), key, lambda: CREATED)

    async def sign_with_library() -> None:
        library()

    pairs = Pairs()
    ours = partial(for_a_slice, lambda: signer.headers_for(**DELIVERY), 1)
    for _ in range(rounds):
        await pairs.take(ours, partial(for_a_slice, sign_with_library, 1))
    print(
        f"{name:24} {pairs.of(lambda our, _: our.cpu_us):10.1f} {pairs.of(lambda _, their: their.cpu_us):10.1f} "
        f"{1 / pairs.cpu_ratio:10.2f} {pairs.of(lambda our, _: our.rate):10,.0f} "
        f"{pairs.of(lambda _, their: their.rate):10,.0f} {pairs.others:10.1f}"
    )


async def compare(name: str, key: RequestKey, callers: int, slices: int) -> None:
    """Print one line for a key."""
    signer = MessageSigner(SignatureProfile(), key, lambda: CREATED)
    bare, whole, stall = Spent(), Spent(), Stall()
    async with stall.watch():
        for _ in range(slices):
            bare += await measure_slice(lambda: key.sign(BASE), callers)
            whole += await measure_slice(lambda: signer.headers_for(**DELIVERY), callers)
    longest = f"{stall.longest:10.1f}" if callers > 1 else f"{'-':>10}"  # a key in memory does not yield to a timer
    print(f"{name:24} {bare.rate:10,.0f} {whole.rate:10,.0f} {bare.cpu_us:10.1f} {whole.cpu_us:10.1f} {longest}")


async def run(slices: int) -> None:
    """Print the tables."""
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
    titles = ("our signer / library", "our µs", "their µs", "ratio", "our/s", "their/s", "others")
    print("\n{:24} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}".format(*titles))
    await compare_with_library("none", NoKey(), library_signer(private, NoAlgorithm), 2 * slices)
    openssl = LocalRequestKey(private, "key-1")
    await compare_with_library("file, OpenSSL", openssl, library_signer(private, ECDSA_P384_SHA384), 2 * slices)


def main(argv: Sequence[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks request_signing", description=__doc__)
    parser.add_argument("--slices", type=int, default=6, help="of half a second, for each of the first table")
    uvloop.run(run(parser.parse_args(argv).slices))
    return 0
