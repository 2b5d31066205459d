"""A client of the card API for these tests: it signs with ``http-message-signatures``, not with our code."""

from __future__ import annotations

import json
import uuid
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_account import Account
from eth_account.messages import encode_defunct
from http_message_signatures import HTTPMessageSigner, HTTPSignatureAlgorithm, HTTPSignatureKeyResolver
from http_message_signatures.algorithms import ECDSA_P384_SHA384
from http_message_signatures.digests import ContentDigest
from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

KEY_ID = "test-key"
REQUEST_KEY = ec.derive_private_key(0x5EED, ec.SECP384R1())
OWNER: LocalAccount = Account.from_key("0x" + "11" * 32)
STRANGER: LocalAccount = Account.from_key("0x" + "22" * 32)
OWNER_ID = f"eip155:324:{OWNER.address}"
COVERED = ("@method", "@authority", "@path", "authorization")


def public_pem(key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """Return the public half of a request key, as it is registered."""
    public = (key or REQUEST_KEY).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class OneKey(HTTPSignatureKeyResolver):
    """Resolves every key id to one private key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def resolve_private_key(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        """Return the key."""
        return self._key


class Sha512Digest(ContentDigest):
    """RFC 9530 with SHA-512."""

    algorithm = "sha-512"


class Sha512Signer(HTTPMessageSigner):
    """Signs with ``Sha512Digest``."""

    content_digest_class = Sha512Digest


@dataclass
class Message:
    """A request in the form of the signing library."""

    method: str
    url: str
    headers: CIMultiDict[str]


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        payload: dict[str, Any] = json.loads(self.body)
        return payload

    @property
    def list(self) -> list[dict[str, Any]]:
        """The body, parsed, if it is a list."""
        payload: list[dict[str, Any]] = json.loads(self.body)
        return payload

    @property
    def code(self) -> str:
        """The error code in the body."""
        code: str = self.json["code"]
        return code


@dataclass(frozen=True)
class Signing:
    """How a request is signed; by default as the API requires."""

    key_id: str = KEY_ID
    key: ec.EllipticCurvePrivateKey = REQUEST_KEY
    algorithm: type[HTTPSignatureAlgorithm] = ECDSA_P384_SHA384
    signer: type[HTTPMessageSigner] = HTTPMessageSigner
    covered: tuple[str, ...] = COVERED
    covers_idempotency_key: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class WalletBackend:
    """Calls one simulator."""

    session: aiohttp.ClientSession
    origin: str
    token: str = ""

    async def fetch_token(self, api_key: str, api_secret: str) -> None:
        """Fetch a token and use it."""
        reply = await self.send("POST", "/v1/auth/token", body={"apiKey": api_key, "apiSecret": api_secret})
        self.token = reply.json["token"]

    async def send(
        self, method: str, path: str, *, body: object = None, headers: CIMultiDict[str] | None = None
    ) -> Reply:
        """Send a request unchanged."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = CIMultiDict(headers or {})
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        url = URL(self.origin + path, encoded=True)
        async with self.session.request(
            method, url, data=content, headers=sent, allow_redirects=False, skip_auto_headers=["User-Agent"]
        ) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    def signed(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        key: str | None = "",
        signing: Signing | None = None,
        headers: dict[str, str] | None = None,
    ) -> CIMultiDict[str]:
        """Return the header fields of a signed request; ``key`` is its Idempotency-Key, empty for a new one."""
        how = signing or Signing()
        message = Message(method, self.origin + path, CIMultiDict({"Authorization": f"Bearer {self.token}"}))
        message.headers.update(headers or {})
        covered = how.covered
        if method != "GET" and key is not None:
            message.headers["Idempotency-Key"] = key or str(uuid.uuid4())
            covered += ("idempotency-key",) if how.covers_idempotency_key else ()
        signer = how.signer(signature_algorithm=how.algorithm, key_resolver=OneKey(how.key))
        signer.sign(message, key_id=how.key_id, covered_component_ids=covered, body=content, **how.parameters)
        return message.headers

    async def call(
        self,
        method: str,
        path: str,
        payload: object = None,
        *,
        key: str | None = "",
        signing: Signing | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Sign a request and send it."""
        content = payload if isinstance(payload, bytes | None) else json.dumps(payload).encode()
        return await self.send(
            method,
            path,
            body=content,
            headers=self.signed(method, path, content, key=key, signing=signing, headers=headers),
        )

    async def create_customer(self, chain_id: str = OWNER_ID, external_id: str = "", **fields: str) -> dict[str, Any]:
        """Create a customer; return it with its challenge."""
        payload = {"chainId": chain_id, "externalId": external_id or str(uuid.uuid4()), **fields}
        reply = await self.call("POST", "/v1/customers", payload)
        assert reply.status == 201, reply
        return reply.json

    async def challenge(self, customer_id: str) -> str:
        """Return the challenge to sign, base64."""
        reply = await self.call("GET", f"/v1/customers/{customer_id}/challenge")
        assert reply.status == 200, reply
        challenge: str = reply.json["challenge"]
        return challenge

    async def deliver(self, customer_id: str, body: dict[str, str], *, key: str | None = "") -> Reply:
        """Deliver a signed challenge."""
        return await self.call("POST", f"/v1/customers/{customer_id}/challenge/sign", body, key=key)


def delivery(challenge: str, *, signer: LocalAccount = OWNER, owner_id: str = OWNER_ID) -> dict[str, str]:
    """Return the body that signs a challenge, with the signature in the form of the guide's example."""
    signature = signer.sign_message(encode_defunct(primitive=b64decode(challenge))).signature
    return {
        "ownerId": owner_id,
        "challenge": challenge,
        "signature": b64encode(f"0x{bytes(signature).hex()}".encode()).decode(),
    }


def seconds_from_now(seconds: float) -> datetime:
    """Return a moment for the ``created`` and ``expires`` of a signature."""
    return datetime.fromtimestamp(datetime.now().astimezone().timestamp() + seconds).astimezone()
