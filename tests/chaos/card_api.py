"""The simulated card API of a chaos run: its process, its faults, its ledger, and the creation of customers."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signer.adapters.request_signing.local_key import load_request_key
from signer.adapters.request_signing.profile import SignatureProfile
from signer.adapters.request_signing.signer import MessageSigner
from signer.devsite.processes import ChildProcess, signer_process
from signer.domain.ethereum import AccountId
from tests.chaos.replica import plain_environment

KEY_ID: Final = "chaos"
"""Of the run's own requests. Each replica has another one, so that the simulator can tell the replicas apart."""
_START_WITHIN_SECONDS: Final = 60.0
_PATIENCE: Final = aiohttp.ClientTimeout(total=3.0)
_PAUSE_SECONDS: Final = 0.1

Row = Mapping[str, object]


def key_id_of(replica: int) -> str:
    """Return the key id under which a replica signs its requests."""
    return f"{KEY_ID}-{replica}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files with the secrets that the service and the run's own requests use."""

    folder: Path

    @property
    def api_key(self) -> Path:
        """The API key."""
        return self.folder / "api-key"

    @property
    def api_secret(self) -> Path:
        """The API secret."""
        return self.folder / "api-secret"

    @property
    def signing_key(self) -> Path:
        """The P-384 key of requests."""
        return self.folder / "signing-key.pem"

    def make(self) -> None:
        """Create the files."""
        self.folder.mkdir()
        self.api_key.write_text(str(uuid.uuid4()))
        self.api_secret.write_text(uuid.uuid4().hex)
        pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        self.signing_key.write_bytes(pem)


class SimulatedCardApi:
    """Calls a running simulator.

    Attributes:
        origin: where it listens; each replica reaches it through its own proxy.
        process: its process.
    """

    def __init__(
        self,
        origin: str,
        process: ChildProcess,
        credentials: Credentials,
        session: aiohttp.ClientSession,
    ) -> None:
        self.origin = origin
        self.process = process
        self._credentials = credentials
        self._session = session
        self._token: str | None = None
        key = load_request_key(credentials.signing_key, KEY_ID)
        self._signer = MessageSigner(SignatureProfile(), key, lambda: int(time.time()))
        self._active_faults: dict[object, tuple[Sequence[Row], Mapping[str, object]]] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.origin.removeprefix("http://").partition(":")
        return host, int(port)

    async def create_customer(self, owner: AccountId) -> dict[str, Any]:
        """Create a customer; retry with the same Idempotency-Key and body until it succeeds.

        If the response to the creation was lost, the customer comes from the list, and then has no challenge.
        """
        wanted = {"chainId": str(owner), "externalId": str(uuid.uuid4())}
        body, idempotency_key = json.dumps(wanted).encode(), str(uuid.uuid4())
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, ValueError):
                status, answer = await self._call_customers("POST", body, {"Idempotency-Key": idempotency_key})
                if status == HTTPStatus.CREATED and {"id", "challenge"} <= answer.keys():  # and not a garbled body
                    return dict(answer)
                if status == HTTPStatus.CONFLICT and answer.get("code") == "customer_exists":
                    status, answer = await self._call_customers("GET", None, {})
                    for listed in answer if isinstance(answer, list) else ():  # and not a garbled body
                        if wanted.items() <= listed.items():
                            return dict(listed)
                self._token = None  # perhaps a 401: one of the faults revokes tokens
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _call_customers(self, method: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any]:
        headers |= {"Authorization": f"Bearer {await self._present_token()}", "Content-Type": "application/json"}
        headers |= await self._signer.headers_for(
            method=method,
            authority=self.origin.removeprefix("http://"),
            path="/v1/customers",
            query="",
            headers=headers,
            body=body,
            scheme="http",
        )
        options: dict[str, Any] = {"timeout": _PATIENCE, "allow_redirects": False}
        url = f"{self.origin}/v1/customers"
        async with self._session.request(method, url, data=body, headers=headers, **options) as response:
            return response.status, await response.json()

    async def inject_faults(self, seconds: float, rows: Sequence[Row], switches: Mapping[str, object]) -> None:
        """Inject faults for some seconds, beside those that other calls inject."""
        handle = object()
        self._active_faults[handle] = rows, switches
        try:
            await self._publish_faults()
            await asyncio.sleep(seconds)
        finally:
            del self._active_faults[handle]
            await self._publish_faults()

    async def admin(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - aiohttp's own
        """Call an admin endpoint; retry until it responds."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                url = f"{self.origin}/_sim/{path}"
                async with self._session.request(method, url, timeout=_PATIENCE, **options) as response:
                    text = await response.text()
                    return json.loads(text) if text else {}
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _publish_faults(self) -> None:
        rows = [row for handle, _ in self._active_faults.values() for row in handle]
        switches: dict[str, object] = {"replayServerErrors": False, "bareConflicts": False}
        for _, handle in self._active_faults.values():
            switches.update(handle)
        if switches["replayServerErrors"]:  # with replayed errors the creation would fail for an hour
            failing = {("status", "create_customer"), ("status_after_commit", "create_customer")}
            rows = [row for row in rows if (row["kind"], row["route"]) not in failing]
        await self.admin("PUT", "faults", json={"faults": rows, "switches": switches})

    async def _present_token(self) -> str:
        if self._token is None:
            body = {
                "apiKey": self._credentials.api_key.read_text(),
                "apiSecret": self._credentials.api_secret.read_text(),
            }
            url = f"{self.origin}/v1/auth/token"
            async with self._session.post(url, json=body, timeout=_PATIENCE) as response:
                response.raise_for_status()
                self._token = (await response.json())["token"]
        return str(self._token)


@asynccontextmanager
async def card_api(
    credentials: Credentials,
    session: aiohttp.ClientSession,
    challenge_lifetime: float,
    *,
    replicas: int = 0,
) -> AsyncIterator[SimulatedCardApi]:
    """Run a simulated card API that knows the key ids of so many replicas, all with the same key."""
    key_ids = (KEY_ID, *map(key_id_of, range(1, replicas + 1)))
    async with signer_process(
        *("simulate", "--port", "0", "--judge", "fast"),
        *("--api-key", credentials.api_key.read_text()),
        *("--api-secret-file", str(credentials.api_secret)),
        *(f"--signing-key={key_id}={credentials.signing_key}" for key_id in key_ids),
        *("--challenge-lifetime", str(challenge_lifetime)),
        environment=plain_environment(),
    ) as process:
        started = await process.wait_for("simulator.started", _START_WITHIN_SECONDS)
        yield SimulatedCardApi(started["address"], process, credentials, session)
