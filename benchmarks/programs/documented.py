"""The same work by the documented calls of siwe, eth-account, http-message-signatures, redis-py and aiohttp."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from eth_account import Account
from eth_account.messages import encode_defunct
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ECDSA_P384_SHA384
from redis.asyncio import Redis
from siwe import SiweMessage  # type: ignore[import-untyped]

from benchmarks.programs.common import SETTINGS, run

_COVERED = ("@method", "@authority", "@path", "content-type", "content-digest", "authorization", "idempotency-key")


@dataclass
class Message:
    """A request as http-message-signatures reads it."""

    method: str
    url: str
    headers: dict[str, str]


def load_request_key() -> ec.EllipticCurvePrivateKey:
    """Return the key that signs requests."""
    key = load_pem_private_key(Path(SETTINGS["request_key"]).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


async def open_handler() -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return the handler."""
    redis = Redis(unix_socket_path=SETTINGS["redis"], max_connections=64)
    keys = MappingKeyResolver(public_keys={}, private_keys={SETTINGS["key_id"]: load_request_key()})
    signer = HTTPMessageSigner(signature_algorithm=ECDSA_P384_SHA384, key_resolver=keys)
    http = aiohttp.ClientSession()

    async def handle(request: web.Request) -> web.Response:
        wanted = await request.json()
        text = base64.b64decode(wanted["challenge"], validate=True).decode("ascii")
        siwe = SiweMessage.from_message(message=text, abnf=True)
        if siwe.domain != SETTINGS["domain"]:
            return web.json_response({"error": "refused"}, status=422)
        if not await redis.set(f"documented:{siwe.nonce}", text, nx=True, px=2_592_000_000):
            return web.json_response({"error": "nonce reused"}, status=409)
        message = encode_defunct(text=text)
        signed = Account.sign_message(message, SETTINGS["private_key"])
        if Account.recover_message(message, signature=signed.signature) != siwe.address:
            return web.json_response({"error": "bad signature"}, status=500)
        signature = base64.b64encode(f"0x{signed.signature.hex()}".encode()).decode()
        payload = aiohttp.JsonPayload({**wanted, "signature": signature})
        body = payload.decode().encode()
        url = f"{SETTINGS['card_api']}/v1/customers/{request.match_info['customer']}/challenge/sign"
        headers = {
            "Authorization": "Bearer " + "x" * 300,
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid5(uuid.NAMESPACE_OID, signature)),
        }
        outgoing = Message("POST", url, headers)
        signer.sign(outgoing, key_id=SETTINGS["key_id"], label="sig1", covered_component_ids=_COVERED, body=body)
        async with http.post(url, data=body, headers=outgoing.headers) as response:
            if response.status != 204:  # noqa: PLR2004 - the card API's contract
                return web.json_response({"error": "not delivered"}, status=502)
        await redis.set(f"documented:{siwe.nonce}", signature, px=2_592_000_000)
        return web.json_response({"state": "verified", "signature": signature})

    return handle


if __name__ == "__main__":
    run(open_handler)
