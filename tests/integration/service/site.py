"""The whole service in this process: its own composition over a real Valkey, a real simulator, real HTTP.

What a failing card API comes to for a wallet backend is seen here; over processes, which are killed, in ``tests/e2e``.
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
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from eth_account import Account

from signer.adapters.keys.keystore.backend import write_keystore
from signer.bootstrap.service import Service, open_service
from signer.config.settings import Settings
from signer.devsite.local_keys import RequestKeyInToken
from signer.observability.events import irregularities
from signer.simulator.app import RunningSimulator, serving
from signer.simulator.faults import ROUTE_NAMES, Fault
from signer.simulator.settings import SimulatorSettings
from signer.web.auth import generate_token
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
    """A service, its card API, and a wallet backend's connection to it."""

    simulator: RunningSimulator
    service: Service
    client: TestClient[Any, Any]
    token: str
    log: LogLines
    secrets: set[str]

    def customer(self) -> tuple[str, str]:
        """Create a customer; gives its id and its challenge, which no line of the log may show."""
        customer = self.simulator.state.customers.create(OWNER, str(uuid.uuid4()), None)
        challenge = customer.challenge.encoded
        self.secrets |= {challenge, challenge[40:100]}
        return str(customer.id), challenge

    def fault(self, *faults: Fault) -> None:
        """Let this go wrong from now on, and nothing else."""
        self.simulator.state.faults.put(faults)

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.simulator.state.reset_faults()

    def calls(self, route: str) -> int:
        """Tell how often the card API was called there."""
        return self.simulator.state.ledger.calls(route)

    async def ask(self, customer_id: str, challenge: str | None = None, **fields: object) -> ClientResponse:
        """Ask for the signature of a customer's challenge."""
        body = {"ownerId": OWNER} | fields | ({} if challenge is None else {"challenge": challenge})
        path = f"/v1/customers/{customer_id}/challenge/sign"
        return await self.client.post(path, json=body, headers=self._authorization)

    async def get(self, path: str) -> dict[str, Any]:
        """GET a path."""
        async with self.client.get(path, headers=self._authorization) as answer:
            body: dict[str, Any] = await answer.json()
            return body

    async def settled(self, challenge_id: str) -> dict[str, Any]:
        """Give a record once it is final."""
        async with asyncio.timeout(30):
            while True:
                record = await self.get(f"/v1/challenges/{challenge_id}")
                if record["state"] in FINAL:
                    return record
                await asyncio.sleep(_POLL)

    def total_calls(self) -> int:
        """Tell how often the card API was called at all."""
        return sum(self.calls(route) for route in ROUTE_NAMES)

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for the first line of an event."""
        async with asyncio.timeout(30):
            while True:
                lines = self.log.of(event)
                if lines:
                    return lines[0]
                await asyncio.sleep(_POLL)

    async def readiness(self, name: str = "card_api") -> dict[str, Any]:
        """Tell what ``/readyz`` says of the card API, or of something else."""
        report = await self.get("/readyz")
        return next(check for check in report["checks"] if check["name"] == name)

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def check_waiting(answer: ClientResponse) -> dict[str, Any]:
    """See that a caller has a signature which is still under way."""
    record: dict[str, Any] = await answer.json()
    is_waiting = (answer.status, record.get("state")) in {(202, "signed"), (202, "forwarding")}
    assert is_waiting, f"{answer.status}: {record}"
    assert answer.headers["Location"] == f"/v1/challenges/{record['id']}"
    assert record["signature"] is not None
    return record


@asynccontextmanager
async def open_site(
    folder: Path, redis: RedisServer, *, request_key: RequestKeyInToken | None = None, **sections: dict[str, object]
) -> AsyncIterator[Site]:
    """Compose a service in an empty folder, with further settings by section; at the end every log line is checked."""
    token, digest = generate_token()
    _lay_out(folder)
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
        service = await stack.enter_async_context(open_service(settings))
        client = await stack.enter_async_context(TestClient(TestServer(service.app, host="127.0.0.1")))
        await service.prepare()
        secrets = {token, API_SECRET, SECRET_KEY.hex(), "wants you to sign in"}
        yield Site(simulator=simulator, service=service, client=client, token=token, log=log, secrets=secrets)
        simulator.state.reset_faults()
        await service.drain()
        assert not [what for line in log.all() for what in irregularities(line)]
        assert not [secret for secret in secrets if secret in log.text]


def _lay_out(folder: Path) -> None:
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
        "redis": {"url": redis.url, "key_prefix": uuid.uuid4().hex[:8], "max_connections": 128},
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
