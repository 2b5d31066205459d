"""The floor: a small aiohttp program with only the work that no program can avoid.

Parse with one regular expression; claim and settle in Redis (two round trips); sign and recover with coincurve; sign
the request with a P-384 key of AWS-LC; one POST. No policy, leases, log lines or errors. ``--shared`` uses one shared
connection to Redis in place of redis-py's pool.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import hiredis
from aiohttp import web
from awscrt.crypto import EC  # type: ignore[import-untyped]
from coincurve import PrivateKey, PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from eth_hash.auto import keccak
from redis.asyncio import Redis

from benchmarks.programs.common import MESSAGE, SETTINGS, run

_COVERED: Final = '"@method" "@authority" "@path" "content-type" "content-digest" "authorization" "idempotency-key"'
_AUTHORIZATION: Final = "Bearer " + "x" * 300

Command = Callable[..., Awaitable[Any]]


class SharedConnection:
    """One connection to Redis for all calls; the calls of one turn of the event loop leave in one write."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start reading."""
        self._writer = writer
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._read(reader))

    async def command(self, *parts: str | bytes | int) -> object:
        """Send a command and return its reply."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(parts))  # type: ignore[arg-type] # its stub allows one part only
        future = self._loop.create_future()
        self._waiting.append(future)
        return await future

    def _flush(self) -> None:
        self._writer.write(b"".join(self._unsent))
        self._unsent.clear()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        replies = hiredis.Reader()
        while data := await stream.read(65536):
            replies.feed(data)
            while (reply := replies.gets()) is not False:
                self._waiting.popleft().set_result(reply)


async def open_redis() -> Command:
    """Return the function that sends a command."""
    if "--shared" in sys.argv:
        return SharedConnection(*await asyncio.open_unix_connection(SETTINGS["redis"])).command
    return Redis(unix_socket_path=SETTINGS["redis"], max_connections=64).execute_command


def open_request_key() -> Callable[[bytes], bytes]:
    """Return the function that signs a signature base."""
    key = load_pem_private_key(Path(SETTINGS["request_key"]).read_bytes(), None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    sign: Callable[[bytes], bytes] = EC.new_key_from_der_data(der).sign

    def signature(base: bytes) -> bytes:
        r, s = decode_dss_signature(sign(hashlib.sha384(base).digest()))
        return r.to_bytes(48) + s.to_bytes(48)

    return signature


async def open_handler() -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return the handler."""
    redis = await open_redis()
    sign_request = open_request_key()
    key = PrivateKey(bytes.fromhex(SETTINGS["private_key"]))
    public = key.public_key.format(compressed=False)
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    origin: str = SETTINGS["card_api"]
    authority = origin.removeprefix("http://")
    domain: str = SETTINGS["domain"]
    key_id: str = SETTINGS["key_id"]

    async def handle(request: web.Request) -> web.Response:
        wanted = await request.json()
        customer = request.match_info["customer"]
        message = base64.b64decode(wanted["challenge"], validate=True)
        match = MESSAGE.fullmatch(message.decode("ascii"))
        if match is None or match["domain"] != domain:
            return web.json_response({"error": "refused"}, status=422)
        record = f"floor:{match['nonce']}"
        if not await redis("SET", record, hashlib.sha256(message).digest(), "NX", "PX", 2_592_000_000):
            return web.json_response({"error": "nonce reused"}, status=409)
        digest = keccak(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)
        signed = key.sign_recoverable(digest, hasher=None)
        if PublicKey.from_signature_and_message(signed, digest, hasher=None).format(compressed=False) != public:
            return web.json_response({"error": "bad signature"}, status=500)
        text = "0x" + signed[:64].hex() + f"{27 + signed[64]:02x}"
        signature = base64.b64encode(text.encode()).decode()
        body = (
            f'{{"ownerId":"{wanted["ownerId"]}","challenge":"{wanted["challenge"]}","signature":"{signature}"}}'
        ).encode()
        path = f"/v1/customers/{customer}/challenge/sign"
        content_digest = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        idempotency_key = str(uuid.uuid5(uuid.NAMESPACE_OID, signature))
        parameters = f'({_COVERED});created={int(time.time()) - 2};keyid="{key_id}";alg="ecdsa-p384-sha384"'
        base = (
            f'"@method": POST\n"@authority": {authority}\n"@path": {path}\n"content-type": application/json\n'
            f'"content-digest": {content_digest}\n"authorization": {_AUTHORIZATION}\n'
            f'"idempotency-key": {idempotency_key}\n"@signature-params": {parameters}'
        )
        headers = {
            "Authorization": _AUTHORIZATION,
            "Content-Type": "application/json",
            "Content-Digest": content_digest,
            "Idempotency-Key": idempotency_key,
            "Signature-Input": f"sig1={parameters}",
            "Signature": f"sig1=:{base64.b64encode(sign_request(base.encode())).decode()}:",
        }
        async with http.post(origin + path, data=body, headers=headers) as response:
            if response.status != 204:  # noqa: PLR2004 - the card API's contract
                return web.json_response({"error": "not delivered"}, status=502)
        await redis("SET", record, signature, "PX", 2_592_000_000)
        return web.json_response({"state": "verified", "signature": signature})

    return handle


if __name__ == "__main__":
    run(open_handler)
