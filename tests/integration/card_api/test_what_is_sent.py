"""What a request carries, and that one which cannot be signed is not sent."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.circuit_breaker import BreakerLimits, CircuitBreaker
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.http_transport import open_session
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.request_signing.request_key import RequestKeyError, RequestKeyFailed, RequestKeyUnavailable
from signer.adapters.request_signing.signature_base import RequestNotSignable
from signer.adapters.request_signing.signer import MessageSigner, SignatureProfile
from signer.application.ports import Delivery, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable, UpstreamTimeout
from tests.integration.card_api.calling import (
    API_KEY,
    API_SECRET,
    CUSTOMER,
    SOON,
    SUBMISSION,
    MachineClock,
    deliver_something,
    make_client,
    never_open,
)
from tests.integration.card_api.conftest import StartRaw
from tests.integration.card_api.raw_server import RawServer, http, token_answer

V = DeliveryVerdict


class TestWhatIsSent:
    """A request carries what it must, and nothing else."""

    async def test_a_delivery(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """After a 401 the same body and key are sent once more, with the new token, signed anew."""
        server = await start_raw(token_answer("old"), http(401), token_answer("new"), http(204))
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

    async def test_a_read(self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path) -> None:
        """It has no body, no digest and no key; a cookie that the API sets never comes back."""
        server = await start_raw(token_answer(), http(200, b'{"challenge": "YQ=="}', "Set-Cookie: a=b"))
        # By name, for cookie jars pass over addresses.
        client = make_client(server.base_url.replace("127.0.0.1", "localhost"), session, tmp_path)
        for _ in range(2):
            assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="
        for request in server.received[1:]:
            assert request.line == f"GET /v1/customers/{CUSTOMER}/challenge HTTP/1.1"
            wanted = {
                "accept",
                "accept-encoding",
                "authorization",
                "host",
                "signature",
                "signature-input",
                "user-agent",
            }
            assert set(request.headers) == wanted

    async def test_a_request_for_a_token(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """The credentials without the line ends of their files; a digest, and no Authorization."""
        server = await start_raw(token_answer())
        await make_client(server.base_url + "/", session, tmp_path).check()
        (request,) = server.received
        assert request.line == "POST /v1/auth/token HTTP/1.1"
        assert request.body == f'{{"apiKey": "{API_KEY}", "apiSecret": "{API_SECRET}"}}'.encode()
        assert "authorization" not in request.headers
        assert request.headers["content-digest"].startswith("sha-256=:")

    async def test_proxies_of_the_environment_are_not_used(
        self, monkeypatch: pytest.MonkeyPatch, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """A request goes to the host of the settings or nowhere."""
        proxy, server = await start_raw(http(200)), await start_raw(token_answer())
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        async with open_session(max_connections=1, keep_alive=SOON) as session:
            await make_client(server.base_url, session, tmp_path).check()
        assert (len(proxy.received), len(server.received)) == (0, 1)


@dataclass(frozen=True, slots=True)
class Failing:
    """A client whose key may fail, and the API that it calls."""

    client: CardApiClient
    server: RawServer


class FailingKey:
    """A request key that does what it is told, and works at first."""

    keyid = "failing"

    def __init__(self) -> None:
        self.error: RequestKeyError | None = None
        self.takes = 0.0

    async def sign(self, base: bytes) -> bytes:
        """96 bytes, or the key's error."""
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self.takes)
        return bytes(96)

    def unavailable_for(self) -> float | None:
        """What its error says."""
        return self.error.retry_after if isinstance(self.error, RequestKeyUnavailable) else None


@pytest.fixture
def key() -> FailingKey:
    """The key of the client below."""
    return FailingKey()


@pytest.fixture
async def failing(session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, key: FailingKey) -> Failing:
    """A client that signs with it, and an API that gives tokens and counts what it gets."""
    server = await start_raw(token_answer(), http(204))
    breaker = CircuitBreaker(BreakerLimits(failures_in_a_row=1), monotonic=time.monotonic)
    settings = make_client(server.base_url, session, tmp_path)._settings
    signer = MessageSigner(SignatureProfile(), key, lambda: 0)
    clock = UpstreamClock(MachineClock())
    return Failing(CardApiClient(settings, session=session, signer=signer, clock=clock, breaker=breaker), server)


class TestSigning:
    """A request that cannot be signed is not sent."""

    async def test_a_profile_that_our_requests_do_not_fit_is_an_error_at_start(
        self, session: aiohttp.ClientSession, tmp_path: Path
    ) -> None:
        """Not at the first delivery."""
        good = make_client("http://127.0.0.1:1/v1", session, tmp_path)
        signer = MessageSigner(SignatureProfile(("@method", "x-not-there")), FailingKey(), lambda: 0)
        client = CardApiClient(good._settings, session=session, signer=signer, clock=good._clock, breaker=never_open())
        with pytest.raises(RequestNotSignable, match="x-not-there"):
            await client.check_signing()

    async def test_a_key_that_fails_leaves_a_delivery_unprocessed(self, failing: Failing, key: FailingKey) -> None:
        """Nothing is POSTed; reading says that the API cannot be asked."""
        key.error = RequestKeyFailed("the key is broken")
        assert await deliver_something(failing.client) == Delivery(V.NOT_PROCESSED, None)
        with pytest.raises(Unavailable, match="could not be signed"):
            await failing.client.customer_status(str(uuid.uuid4()), timeout=SOON)
        assert len(failing.server.received) == 1

    async def test_a_token_that_is_away_says_when_to_come_back(self, failing: Failing, key: FailingKey) -> None:
        """The delivery is unprocessed, a reader is told in words for a caller, and both learn when to ask again."""
        key.error = RequestKeyUnavailable("no token in /usr/lib/x.so", "the token did not sign: it is not there", 4.0)
        assert await deliver_something(failing.client) == Delivery(V.NOT_PROCESSED, None, timedelta(seconds=4))
        with pytest.raises(Unavailable, match="it is not there") as refused:
            await failing.client.fetch_challenge(CUSTOMER, timeout=SOON)
        assert (refused.value.code, refused.value.retry_after) == (ErrorCode.CARD_API_UNAVAILABLE, 4.0)
        assert "/usr/lib" not in refused.value.detail
        assert len(failing.server.received) == 1

    async def test_a_request_that_cannot_be_signed_says_nothing_about_the_api(
        self, failing: Failing, key: FailingKey
    ) -> None:
        """One failure would open this breaker; ten that are ours do not, and then the API is asked."""
        key.error = RequestKeyUnavailable("gone", "gone", 1.0)
        for _ in range(10):
            await deliver_something(failing.client)
        assert failing.client.suspended_for() == timedelta(seconds=1)
        key.error = None
        assert failing.client.suspended_for() is None
        assert await deliver_something(failing.client) == Delivery(V.ACCEPTED, 204)

    async def test_a_signature_that_comes_too_late_is_not_sent(self, failing: Failing, key: FailingKey) -> None:
        """A request's time covers its signature; what is late is unprocessed, and the API did not see it."""
        await failing.client.check()
        key.takes = 30.0
        began = time.monotonic()
        delivery = await deliver_something(failing.client, timeout=timedelta(seconds=0.2))
        assert delivery == Delivery(V.NOT_PROCESSED, None)
        assert time.monotonic() - began < 10
        with pytest.raises(UpstreamTimeout):
            await failing.client.fetch_challenge(CUSTOMER, timeout=timedelta(seconds=0.2))
        assert failing.client.suspended_for() is None
        assert len(failing.server.received) == 1
