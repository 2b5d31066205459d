"""The composed service in this process, over a real Valkey, the simulated card API and real HTTP.

These tests show the effects of a failing card API. Those in ``tests/e2e`` kill real processes.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from eth_account import Account

from signer.adapters.keys.keystore.backend import write_keystore
from signer.bootstrap.service import Service, open_service
from signer.config.settings import Settings
from signer.devsite.local_keys import RequestKeyInToken
from signer.observability.metrics import Metrics, counting
from signer.simulator.app import RunningSimulator, serving
from signer.simulator.faults import ROUTE_NAMES, Fault
from signer.simulator.settings import SANDBOX_DOMAIN, SimulatorSettings
from signer.web.auth import generate_token
from tests.support.http_server import HttpServer
from tests.support.irregularities import irregularities
from tests.support.log_lines import LogLines, captured_logs
from tests.support.servers import RedisServer

SECRET_KEY: Final = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
OWNER: Final = f"eip155:324:{Account.from_key(SECRET_KEY).address}"
KEY_ID: Final = "test-key"
API_KEY: Final = "0b0f7c0a-5a3e-4b7e-8a35-5d1f0f2f6c22"
API_SECRET: Final = "c0ffee-secret-of-the-tests"
FINAL: Final = {"verified", "already_signed", "superseded", "rejected", "expired"}
_REQUEST_KEY: Final = ec.derive_private_key(0x5EED, ec.SECP384R1())
_POLL: Final = 0.01


@dataclass(slots=True, kw_only=True)
class Site:
    """A service, its card API, and a wallet backend's client. ``secrets`` must not appear in the log."""

    simulator: RunningSimulator
    service: Service
    client: TestClient[Any, Any]
    token: str
    log: LogLines
    secrets: set[str]

    def customer(self) -> tuple[str, str]:
        """Create a customer, return its id and its challenge, and add the challenge to the secrets."""
        customer = self.simulator.state.customers.create(OWNER, str(uuid.uuid4()), None)
        challenge = customer.challenge.encoded
        self.secrets |= {challenge, challenge[40:100]}
        return str(customer.id), challenge

    def fault(self, *faults: Fault) -> None:
        """Set the faults of the card API, in place of all earlier ones."""
        self.simulator.state.faults.put(faults)

    def calm(self) -> None:
        """Remove all faults of the card API."""
        self.simulator.state.reset_faults()

    def calls(self, route: str) -> int:
        """Return how many requests this route of the card API received."""
        return self.simulator.state.ledger.calls(route)

    async def ask(self, customer_id: str, challenge: str | None = None, **fields: object) -> ClientResponse:
        """Request the signature of a customer's challenge."""
        body = {"ownerId": OWNER} | fields | ({} if challenge is None else {"challenge": challenge})
        path = f"/v1/customers/{customer_id}/challenge/sign"
        return await self.client.post(path, json=body, headers=self._authorization)

    async def ask_patiently(self, customer_id: str, challenge: str) -> ClientResponse:
        """Request a signature, again as long as the response is ``challenge_in_progress``; return the last one.

        For a service whose ``http.answer_within`` is short: on a busy machine even the signature may not exist by then.
        """
        async with asyncio.timeout(30):
            while True:
                response = await self.ask(customer_id, challenge)
                if response.status != 503 or (await response.json())["code"] != "challenge_in_progress":
                    return response

    async def get(self, path: str) -> dict[str, Any]:
        """GET a path and return the body."""
        async with self.client.get(path, headers=self._authorization) as response:
            body: dict[str, Any] = await response.json()
            return body

    async def settled(self, challenge_id: str) -> dict[str, Any]:
        """Wait until a record is final and return it."""
        async with asyncio.timeout(30):
            while True:
                record = await self.get(f"/v1/challenges/{challenge_id}")
                if record["state"] in FINAL:
                    return record
                await asyncio.sleep(_POLL)

    def total_calls(self) -> int:
        """Return how many requests the card API received."""
        return sum(self.calls(route) for route in ROUTE_NAMES)

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for the first line of an event and return it."""
        async with asyncio.timeout(30):
            while True:
                lines = self.log.of(event)
                if lines:
                    return lines[0]
                await asyncio.sleep(_POLL)

    async def readiness(self, name: str = "card_api") -> dict[str, Any]:
        """Return the result of one check of ``/readyz``."""
        report = await self.get("/readyz")
        return next(check for check in report["checks"] if check["name"] == name)

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def check_waiting(response: ClientResponse) -> dict[str, Any]:
    """Assert that the response has a signature whose delivery goes on, and return the record."""
    record: dict[str, Any] = await response.json()
    is_waiting = (response.status, record.get("state")) in {(202, "signed"), (202, "forwarding")}
    assert is_waiting, f"{response.status}: {record}"
    assert response.headers["Location"] == f"/v1/challenges/{record['id']}"
    assert record["signature"] is not None
    return record


@asynccontextmanager
async def open_site(
    folder: Path,
    redis: RedisServer,
    /,
    *,
    request_key: RequestKeyInToken | None = None,
    metrics: Metrics | None = None,
    **sections: dict[str, object],
) -> AsyncIterator[Site]:
    """Run a service in an empty folder, with more settings by section, and check every log line at the end."""
    token, digest = generate_token()
    _write_secrets(folder)
    async with AsyncExitStack() as stack:
        log = stack.enter_context(captured_logs())
        public_pem = _REQUEST_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        simulator = await stack.enter_async_context(
            serving(
                SimulatorSettings(
                    api_key=API_KEY,
                    api_secret=API_SECRET,
                    signing_keys={KEY_ID: public_pem.decode() if request_key is None else request_key.public_pem},
                    judge="fast",
                )
            )
        )
        settings = _settings(folder, redis, simulator.base_url, digest, request_key, sections)
        if metrics is not None:
            stack.enter_context(counting(metrics))
        service = await stack.enter_async_context(open_service(settings, metrics=metrics))
        client = await stack.enter_async_context(TestClient(HttpServer(service.http)))
        await service.prepare()
        secrets = {token, API_SECRET, SECRET_KEY.hex(), "wants you to sign in"}
        yield Site(simulator=simulator, service=service, client=client, token=token, log=log, secrets=secrets)
        simulator.state.reset_faults()
        await service.drain()
        assert [found for line in log.all() for found in irregularities(line)] == []
        assert not [secret for secret in secrets if secret in log.text]


def _write_secrets(folder: Path) -> None:
    (folder / "api-key").write_text(API_KEY)
    (folder / "api-secret").write_text(API_SECRET)
    pem = _REQUEST_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "signing-key.pem").write_bytes(pem)
    (folder / "password").write_text("correct horse battery")
    (folder / "keystores").mkdir()
    write_keystore(folder / "keystores", SECRET_KEY, b"correct horse battery", work=2)


def _settings(
    folder: Path,
    redis: RedisServer,
    base_url: str,
    token_sha256: str,
    request_key: RequestKeyInToken | None,
    sections: dict[str, dict[str, object]],
) -> Settings:
    settings: dict[str, Any] = {
        "http": {"answer_within": 60},
        "callers": [{"name": "wallet-backend", "token_sha256": token_sha256}],
        "policy": {"domains": [SANDBOX_DOMAIN]},
        "redis": {"url": redis.url, "key_prefix": uuid.uuid4().hex[:8]},
        "card_api": {
            "base_url": base_url,
            "api_key_file": folder / "api-key",
            "api_secret_file": folder / "api-secret",
            "signing_key_file": folder / "signing-key.pem",
            "signing_key_id": KEY_ID,
            "request_timeout": 5,
        },
        "keys": {"uris": [f"keystore:{folder / 'keystores'}?password_file={folder / 'password'}"]},
        "forwarding": {"first_pause": 0.02, "longest_pause": 0.1, "recover_every": 0.05},
    }
    for name, section in sections.items():
        settings[name] |= section
    if request_key is not None:
        del settings["card_api"]["signing_key_file"]
        settings["card_api"]["signing_key_uri"] = request_key.uri
    return Settings.model_validate(settings)
