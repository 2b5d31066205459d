"""The HTTP API on a loopback port, with the real use cases over fakes of their ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from signer.application.admission import AdmissionGate
from signer.application.forward_signature import ForwardSignature
from signer.application.handle_sign_request import HandleSignRequest
from signer.application.onboard_customer import OnboardCustomer
from signer.application.reload_keys import ReloadKeys
from signer.application.settle_or_defer import SettleOrDefer
from signer.application.sign_challenge import SignChallenge
from signer.application.stored_signature_check import StoredSignatureCheck
from signer.domain.challenge import MAX_BASE64
from signer.observability.writers import AuditLogLines, ReloadLogLines, RequestLogLines
from signer.web.app import create_http
from signer.web.auth import Callers, generate_token
from signer.web.connections import HttpRunner
from signer.web.handlers import Handlers
from signer.web.health import Readiness, check_keys
from signer.web.settings import CallerSettings, HttpSettings
from tests.support.fakes.card_api import FakeCardApi
from tests.support.fakes.challenge_store import FakeChallengeStore
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.customer_intents import FakeCustomerIntents
from tests.support.fakes.key_reloads import FakeKeyReloader
from tests.support.fakes.keys import FakeKey, FakeKeyRing, FakeVerifier
from tests.support.http_server import HttpServer
from tests.support.irregularities import irregularities
from tests.support.log_lines import LogLines, captured_logs
from tests.support.messages import DEFAULT_POLICY, Message, to_base64
from tests.unit.application.fake_system import forwarding_limits, signing_limits

SECRET_KEY: Final = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
NOW: Final = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
CUSTOMER: Final = "04c5851c-4386-5bd9-9f89-08312f8aee3a"
OTHER_CUSTOMER: Final = "04c5851c-4386-5bd9-9f89-08312f8aee3b"
PROBLEM: Final = "application/problem+json"


@dataclass(slots=True, kw_only=True)
class Site:
    """The running HTTP API and the fakes behind it. ``secrets`` must not appear in the log."""

    clock: FakeClock
    key: FakeKey
    keys: FakeKeyRing
    reloader: FakeKeyReloader
    card_api: FakeCardApi
    store: FakeChallengeStore
    admission: AdmissionGate
    sign: HandleSignRequest
    token: str
    log: LogLines
    http: HttpRunner
    client: TestClient[Any, Any]
    secrets: set[str] = field(default_factory=set)

    @property
    def owner(self) -> str:
        """The CAIP-10 id of the account whose key is loaded."""
        return f"eip155:324:{self.key.address}"

    @property
    def authorization(self) -> dict[str, str]:
        """The header of a known caller."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def port(self) -> int:
        """The port on which the service listens."""
        assert self.client.port is not None
        return self.client.port

    def challenge(self, **fields: str | None) -> str:
        """Return a challenge that can be signed unless ``fields`` prevent it, and add it to the secrets."""
        text = Message(**({"address": self.key.address} | fields)).text()  # type: ignore[arg-type]
        encoded = to_base64(text.encode())
        self.secrets |= {encoded, encoded[40:100], "wants you to sign in"}
        return encoded

    async def post(self, body: Any, *, customer: str = CUSTOMER, **kwargs: Any) -> ClientResponse:  # noqa: ANN401
        """POST a JSON body to the signing route."""
        path = f"/v1/customers/{customer}/challenge/sign"
        return await self.client.post(path, json=body, headers=self.authorization, **kwargs)

    async def ask(self, challenge: str | None = None, **fields: object) -> ClientResponse:
        """Request the signature of a challenge."""
        body: dict[str, object] = {"ownerId": self.owner} | fields
        return await self.post(body if challenge is None else body | {"challenge": challenge})

    async def get(self, path: str, **headers: str) -> ClientResponse:
        """GET a path as the known caller."""
        return await self.client.get(path, headers=self.authorization | headers)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a connection to the service, and close it at the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def send_raw(self, data: bytes, *, first: int = -1) -> bytes:
        """Send bytes over a new connection, and return the first bytes of the response or all until it is closed."""
        async with self.connection() as (reader, writer):
            writer.write(data)
            return await asyncio.wait_for(reader.read(first), 10)

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for the first line of an event and return it."""
        for _ in range(1000):
            lines = self.log.of(event)
            if lines:
                return lines[0]
            await asyncio.sleep(0.005)
        raise AssertionError(f"no line {event} was written")

    def check_log(self) -> None:
        """Assert that every line is in the catalogue and that none shows a secret."""
        assert [found for line in self.log.all() for found in irregularities(line)] == []
        for secret in self.secrets | {self.token, SECRET_KEY.hex()}:
            assert secret not in self.log.text


@asynccontextmanager
async def open_site(
    *,
    answer_within: timedelta = timedelta(seconds=5),
    max_body: int = 16_384,
    max_connections: int = 500,
) -> AsyncIterator[Site]:
    """Serve the HTTP API, and check every log line at the end."""
    with captured_logs() as log:
        clock, key, card_api, admission = FakeClock(NOW), FakeKey(SECRET_KEY), FakeCardApi(), AdmissionGate()
        store = FakeChallengeStore(now=clock.now)
        keys, audit = FakeKeyRing([key]), AuditLogLines()
        forward = ForwardSignature(
            store=store,
            card_api=card_api,
            check=StoredSignatureCheck(policy=DEFAULT_POLICY, verifier=FakeVerifier(), clock=clock),
            clock=clock,
            settling=SettleOrDefer(store=store, card_api=card_api, audit=audit, limits=forwarding_limits()),
        )
        sign = HandleSignRequest(
            admission=admission,
            sign=SignChallenge(
                policy=DEFAULT_POLICY,
                keys=keys,
                store=store,
                card_api=card_api,
                forward=forward,
                clock=clock,
                audit=audit,
                limits=signing_limits(work_timeout=timedelta(seconds=5)),
            ),
            store=store,
            audit=audit,
            lookup_reserve=timedelta(seconds=1),
            max_base64=MAX_BASE64,
        )
        token, digest = generate_token()
        reloader = FakeKeyReloader()
        reload = ReloadKeys(reloader, clock, ReloadLogLines())
        request_log = RequestLogLines()
        handlers = Handlers(
            sign=sign,
            onboard=OnboardCustomer(
                admission=admission,
                policy=DEFAULT_POLICY,
                keys=keys,
                intents=FakeCustomerIntents(),
                card_api=card_api,
                sign=sign,
                audit=audit,
                card_api_timeout=timedelta(seconds=8),
            ),
            store=store,
            keys=keys,
            reload=reload,
            readiness=Readiness({"keys": check_keys(keys)}, request_log),
            settings=HttpSettings(answer_within=answer_within, max_body=max_body, max_connections=max_connections),
        )
        callers = Callers(
            CallerSettings(name=name, token_sha256=sha256)
            for name, sha256 in (("wallet", digest), ("other", generate_token()[1]))
        )
        http = create_http(handlers, callers, request_log)
        async with TestClient(HttpServer(http)) as client:
            site = Site(
                clock=clock,
                key=key,
                keys=keys,
                reloader=reloader,
                card_api=card_api,
                store=store,
                admission=admission,
                sign=sign,
                token=token,
                log=log,
                http=http,
                client=client,
            )
            yield site
            await reload.close()
            card_api.open.set()
            key.open.set()
            assert await sign.drain(timedelta(seconds=5)) == 0
        site.check_log()
