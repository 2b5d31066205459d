"""What a request contains; and a request that cannot be signed is not sent."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.circuit_breaker import CircuitBreaker
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.http_transport import open_session
from signer.adapters.request_signing.profile import SignatureProfile
from signer.adapters.request_signing.request_key import RequestKeyError, RequestKeyUnavailable
from signer.adapters.request_signing.signature_base import RequestNotSignable
from signer.adapters.request_signing.signer import MessageSigner
from signer.application.origin import ORIGIN, Origin, Trace
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable, UpstreamTimeout
from tests.integration.card_api.calling import (
    API_KEY,
    API_SECRET,
    CUSTOMER,
    SOON,
    SUBMISSION,
    deliver_something,
    make_client,
)
from tests.integration.card_api.conftest import StartRaw
from tests.integration.card_api.raw_server import RawServer, http, token_response

V = DeliveryVerdict


class TestWhatIsSent:
    """A request contains what the contract requires, and nothing else."""

    async def test_delivery(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """After a 401 the same body and key are sent once more, with the new token and a new signature."""
        server = await start_raw(token_response("old"), http(401), token_response("new"), http(204))
        client = make_client(server.base_url, session, tmp_path)
        assert (await deliver_something(client)).verdict is V.ACCEPTED
        first, second = server.received[1], server.received[3]
        assert first.line == second.line == f"POST /v1/customers/{CUSTOMER}/challenge/sign HTTP/1.1"
        assert first.body == second.body == SUBMISSION.body
        assert (first.headers["authorization"], second.headers["authorization"]) == ("Bearer old", "Bearer new")
        assert first.headers["signature"] != second.headers["signature"]
        same = ("idempotency-key", "content-digest", "content-type", "host", "user-agent")
        assert [first.headers[name] for name in same] == [second.headers[name] for name in same]
        assert first.headers["idempotency-key"] == SUBMISSION.idempotency_key
        assert first.headers["content-type"] == "application/json"
        assert first.headers["host"] == server.base_url.removeprefix("http://").removesuffix("/v1")
        assert first.headers["user-agent"].startswith("challenge-signer/")
        assert set(first.headers) == {
            *same,
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "signature",
            "signature-input",
        }

    async def test_read(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """It has no body, no digest and no key; cookies are not kept."""
        server = await start_raw(token_response(), http(200, b'{"challenge": "YQ=="}', "Set-Cookie: a=b"))
        # By name, because cookie jars ignore addresses.
        client = make_client(server.base_url.replace("127.0.0.1", "localhost"), session, tmp_path)
        for _ in range(2):
            assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="
        for request in server.received[1:]:
            assert request.line == f"GET /v1/customers/{CUSTOMER}/challenge HTTP/1.1"
            expected = {
                "accept",
                "accept-encoding",
                "authorization",
                "host",
                "signature",
                "signature-input",
                "user-agent",
            }
            assert set(request.headers) == expected

    async def test_trace_of_the_caller_is_sent_on(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """Each attempt has a new span id, no signature covers the header, and the request for a token has none."""
        server = await start_raw(token_response("old"), http(401), token_response("new"), http(204))
        client = make_client(server.base_url, session, tmp_path)
        origin = ORIGIN.set(Origin("r", trace=Trace("4bf92f3577b34da6a3ce929d0e0e4736", "01")))
        try:
            assert (await deliver_something(client)).verdict is V.ACCEPTED
        finally:
            ORIGIN.reset(origin)
        token, first, renewed, second = server.received
        sent = [first.headers["traceparent"], second.headers["traceparent"]]
        assert all(re.fullmatch("00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01", each) for each in sent)
        assert len(set(sent)) == 2
        assert not {"traceparent"} & (token.headers.keys() | renewed.headers.keys())
        assert "traceparent" not in first.headers["signature-input"]

    async def test_token_request(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """The credentials without the line ends of their files, a digest, and no Authorization."""
        server = await start_raw(token_response())
        await make_client(server.base_url + "/", session, tmp_path).check()
        request, _ = server.received
        assert request.line == "POST /v1/auth/token HTTP/1.1"
        assert request.body == f'{{"apiKey": "{API_KEY}", "apiSecret": "{API_SECRET}"}}'.encode()
        assert "authorization" not in request.headers
        assert request.headers["content-digest"].startswith("sha-256=:")

    async def test_proxies_of_environment_are_ignored(
        self, monkeypatch: pytest.MonkeyPatch, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """A request goes to the configured host only."""
        proxy, server = await start_raw(http(200)), await start_raw(token_response())
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        async with open_session() as session:
            await make_client(server.base_url, session, tmp_path).check()
        assert (len(proxy.received), len(server.received)) == (0, 2)


@dataclass(frozen=True, slots=True)
class Failing:
    """A client whose request key may fail, and its server."""

    client: CardApiClient
    server: RawServer


class FailingKey:
    """A request key that a test can make fail or slow."""

    keyid = "failing"
    signs_at_once = False

    def __init__(self) -> None:
        self.error: RequestKeyError | None = None
        self.takes = 0.0

    async def sign(self, base: bytes) -> bytes:
        """Return 96 bytes, or raise the error that a test has set."""
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self.takes)
        return bytes(96)

    def unavailable_for(self) -> float | None:
        """Return the error's ``retry_after``."""
        return self.error.retry_after if isinstance(self.error, RequestKeyUnavailable) else None


@pytest.fixture
def key() -> FailingKey:
    """The request key of ``failing``."""
    return FailingKey()


@pytest.fixture
async def failing(session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, key: FailingKey) -> Failing:
    """A client that signs with ``key``, and a server that issues tokens and records requests."""
    server = await start_raw(token_response(), http(204))
    breaker = CircuitBreaker(monotonic=time.monotonic, failures_to_open=1)
    signer = MessageSigner(SignatureProfile(), key, lambda: 0)
    return Failing(make_client(server.base_url, session, tmp_path, breaker=breaker, signer=signer), server)


class TestSigning:
    """A request that cannot be signed is not sent."""

    async def test_profile_that_does_not_fit_requests_fails_at_start(
        self, session: aiohttp.ClientSession, tmp_path: Path
    ) -> None:
        """Not at the first delivery."""
        signer = MessageSigner(SignatureProfile(("@method", "x-not-there")), FailingKey(), lambda: 0)
        client = make_client("http://127.0.0.1:1/v1", session, tmp_path, signer=signer)
        with pytest.raises(RequestNotSignable, match="x-not-there"):
            await client.check_signing()

    async def test_failing_key_leaves_delivery_unprocessed(self, failing: Failing, key: FailingKey) -> None:
        """Nothing is POSTed; a read raises Unavailable."""
        key.error = RequestKeyError("the key is broken")
        assert await deliver_something(failing.client) == DeliveryResult(V.NOT_PROCESSED, None)
        with pytest.raises(Unavailable, match="could not be signed"):
            await failing.client.customer_status(str(uuid.uuid4()), timeout=SOON)
        assert len(failing.server.received) == 1

    async def test_unavailable_key_tells_when_to_retry(self, failing: Failing, key: FailingKey) -> None:
        """The error's text is the one for callers, without paths."""
        key.error = RequestKeyUnavailable("no token in /usr/lib/x.so", "the token did not sign: it is not there", 4.0)
        assert await deliver_something(failing.client) == DeliveryResult(V.NOT_PROCESSED, None, timedelta(seconds=4))
        with pytest.raises(Unavailable, match="it is not there") as refused:
            await failing.client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert (refused.value.code, refused.value.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 4.0)
        assert "/usr/lib" not in refused.value.detail
        assert len(failing.server.received) == 1

    async def test_failing_key_does_not_open_breaker(self, failing: Failing, key: FailingKey) -> None:
        """One failure of the card API would open this breaker; ten of the key do not."""
        key.error = RequestKeyUnavailable("gone", "gone", 1.0)
        for _ in range(10):
            await deliver_something(failing.client)
        assert failing.client.suspended_for() == timedelta(seconds=1)
        key.error = None
        assert failing.client.suspended_for() is None
        assert await deliver_something(failing.client) == DeliveryResult(V.ACCEPTED, 204)

    async def test_late_signature_is_not_sent(self, failing: Failing, key: FailingKey) -> None:
        """The timeout covers signing; the delivery is not processed."""
        await failing.client.check()
        received = len(failing.server.received)
        key.takes = 30.0
        began = time.monotonic()
        delivery = await deliver_something(failing.client, timeout=timedelta(seconds=0.2))
        assert delivery == DeliveryResult(V.NOT_PROCESSED, None)
        assert time.monotonic() - began < 10
        with pytest.raises(UpstreamTimeout):
            await failing.client.fetch_challenge(CUSTOMER, timeout=timedelta(seconds=0.2))
        assert failing.client.suspended_for() is None
        assert len(failing.server.received) == received
