"""A whole site on one machine, out of nothing: an embedded Valkey, a simulated card API and the service, with fresh keys.

Everything lives in one private folder that is gone when the site closes. The service and the card API are real processes,
started by the command line and configured by a file, as they are anywhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from coincurve import PrivateKey
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signer.adapters.keys.keystores import write_keystore
from signer.adapters.message_signatures import MessageSigner, SignatureProfile
from signer.adapters.request_keys import load_request_key
from signer.cli.embedded_valkey import embedded_valkey
from signer.cli.processes import ProcessFailed, SignerProcess, signer_process
from signer.config import CardApiSettings
from signer.domain.ethereum import AccountId, ChainId, address_of_public_key
from signer.web.auth import generate_token

CHAIN: Final = ChainId(324)
_KEY_ID: Final = "local-site"
_START_WITHIN_SECONDS: Final = 60.0
_SCRYPT_WORK: Final = 4096
"""Light on purpose: these keys protect nothing and live for minutes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, for people to read."""

    name: str
    result: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class LocalSite:
    """A running site.

    Attributes:
        folder: the private folder.
        base_url: of the service.
        card_api: origin of the simulated card API.
        token: the bearer token of the one caller.
        owner: the account whose key the service holds.
        service: the process.
        http: an open session for the site's own requests.
    """

    folder: Path
    base_url: str
    card_api: str
    token: str
    owner: AccountId
    service: SignerProcess
    http: aiohttp.ClientSession

    async def create_customer(self) -> dict[str, Any]:
        """Create a customer at the card API, as the wallet's backend does: with a token and a signed request."""
        secrets_folder = self.folder / "card-api"
        credentials = {
            "apiKey": (secrets_folder / "api-key").read_text(),
            "apiSecret": (secrets_folder / "api-secret").read_text(),
        }
        async with self.http.post(f"{self.card_api}/v1/auth/token", json=credentials) as answer:
            token = (await answer.json())["token"]
        body = json.dumps({"chainId": str(self.owner), "externalId": str(uuid.uuid4())}).encode()
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        defaults = CardApiSettings()
        profile = SignatureProfile(
            covered_components=defaults.covered_components,
            label=defaults.signature_label,
            digest_algorithm=defaults.digest_algorithm,
            backdate_seconds=defaults.backdate,
        )
        key = load_request_key(secrets_folder / "signing-key.pem", _KEY_ID)
        signer = MessageSigner(profile, key, lambda: int(time.time()))
        headers |= signer.headers_for(
            method="POST",
            authority=self.card_api.removeprefix("http://"),
            path="/v1/customers",
            query="",
            headers=headers,
            body=body,
        )
        async with self.http.post(f"{self.card_api}/v1/customers", data=body, headers=headers) as answer:
            customer: dict[str, Any] = await answer.json()
            if answer.status != 201:  # noqa: PLR2004 - Created
                raise ProcessFailed(f"The card API answered {answer.status} to POST /v1/customers: {customer}")
            return customer

    async def sign(self, customer_id: str, **fields: object) -> tuple[int, dict[str, Any]]:
        """Ask the service to sign the customer's challenge; gives the status and the body."""
        url = f"{self.base_url}/v1/customers/{customer_id}/challenge/sign"
        body = {"ownerId": str(self.owner), **fields}
        async with self.http.post(url, json=body, headers=self.authorization) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """GET a path of the service."""
        async with self.http.get(f"{self.base_url}{path}", headers=self.authorization) as answer:
            return answer.status, await answer.json()

    async def ledger(self, customer_id: str) -> dict[str, Any]:
        """Ask the card API what it verified for a customer."""
        async with self.http.get(f"{self.card_api}/_sim/ledger", params={"customerId": customer_id}) as answer:
            ledger: dict[str, Any] = await answer.json()
            return ledger

    @property
    def authorization(self) -> dict[str, str]:
        """The header that the service wants."""
        return {"Authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def local_site(folder: Path, tell: Callable[[Step], None] = lambda _: None) -> AsyncIterator[LocalSite]:
    """Build and run a site in ``folder``, which has to be private and empty; each step is told as it is done.

    Raises:
        ProcessFailed: a part did not start.
    """
    async with AsyncExitStack() as stack:
        started = time.perf_counter()

        def done(name: str, result: str) -> None:
            nonlocal started
            now = time.perf_counter()
            tell(Step(name, result, (now - started) * 1000))
            started = now

        token, digest = generate_token()
        owner = await asyncio.to_thread(_lay_out, folder)
        done("keys", f"a fresh secp256k1 key for {owner.address}, and a P-384 key for requests")
        valkey = await stack.enter_async_context(embedded_valkey())
        done("valkey", "on a private socket")
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        card_api = await stack.enter_async_context(
            signer_process(
                *("simulate", "--port", "0"),
                *("--api-key", (folder / "card-api/api-key").read_text()),
                *("--api-secret-file", str(folder / "card-api/api-secret")),
                *("--signing-key", f"{_KEY_ID}={folder / 'card-api/signing-key.pem'}"),
                environment=environment,
            ),
        )
        origin = (await card_api.wait_for("simulator.started", _START_WITHIN_SECONDS))["address"]
        done("card API", f"simulated, at {origin}")
        config = folder / "signer.toml"
        config.write_text(_config(folder, valkey.url, origin, digest, owner))
        service = await stack.enter_async_context(
            signer_process("serve", "--config", str(config), environment=environment),
        )
        started_at = await service.wait_for("service.started", _START_WITHIN_SECONDS)
        address = f"http://{started_at['host']}:{started_at['port']}"
        await service.wait_for("service.ready", _START_WITHIN_SECONDS)
        done("service", f"ready, at {address}")
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield LocalSite(folder, address, origin, token, owner, service, http)


def _lay_out(folder: Path) -> AccountId:
    """Write the secrets of a site: card API credentials, the P-384 key, one keystore and its password."""
    card_api = folder / "card-api"
    card_api.mkdir()
    (card_api / "api-key").write_text(str(uuid.uuid4()))
    (card_api / "api-secret").write_text(secrets.token_urlsafe(32))
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (card_api / "signing-key.pem").write_bytes(pem)
    key = PrivateKey()
    password = secrets.token_urlsafe(32)
    (folder / "keystore-password").write_text(password)
    (folder / "keystores").mkdir()
    write_keystore(folder / "keystores", key.secret, password.encode(), kdf="scrypt", work=_SCRYPT_WORK)
    return AccountId(CHAIN, address_of_public_key(key.public_key.format(compressed=False)))


def _config(folder: Path, redis_url: str, card_api: str, token_sha256: str, owner: AccountId) -> str:
    """Write the service's settings; JSON's strings are TOML's."""
    keystores = f"keystore:{folder / 'keystores'}?password_file={folder / 'keystore-password'}"
    return f"""\
[http]
port = 0

[[callers]]
name = "wallet-backend"
token_sha256 = "{token_sha256}"

[redis]
url = {json.dumps(redis_url)}

[card_api]
base_url = {json.dumps(card_api + "/v1")}
api_key_file = {json.dumps(str(folder / "card-api/api-key"))}
api_secret_file = {json.dumps(str(folder / "card-api/api-secret"))}
signing_key_file = {json.dumps(str(folder / "card-api/signing-key.pem"))}
signing_key_id = "{_KEY_ID}"

[keys]
uris = [{json.dumps(keystores)}]
expected_owners = ["{owner}"]
"""
