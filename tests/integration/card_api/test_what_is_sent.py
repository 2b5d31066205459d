"""What a request carries, and that one which cannot be signed is not sent."""

from __future__ import annotations

import uuid
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.card_api.wire import open_session
from signer.adapters.message_signatures import MessageSigner, SignatureProfile
from signer.adapters.request_keys import RequestKeyFailed
from signer.adapters.signature_base import RequestNotSignable
from signer.application.ports import Delivery, DeliveryVerdict
from signer.domain.errors import Unavailable
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
from tests.integration.card_api.raw_server import http, token_answer

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


class FailingKey:
    """A request-signing key that works until it is told not to."""

    keyid = "failing"
    works = True

    def sign(self, base: bytes) -> bytes:
        """96 bytes, or the key's error."""
        if not self.works:
            raise RequestKeyFailed("the key is gone")
        return bytes(96)


class TestSigning:
    """A request that cannot be signed is not sent."""

    async def test_a_profile_that_our_requests_do_not_fit_is_an_error_at_start(
        self, session: aiohttp.ClientSession, tmp_path: Path
    ) -> None:
        """Not at the first delivery."""
        good = make_client("http://127.0.0.1:1/v1", session, tmp_path)
        signer = MessageSigner(SignatureProfile(("@method", "x-not-there")), FailingKey(), lambda: 0)
        with pytest.raises(RequestNotSignable, match="x-not-there"):
            CardApiClient(good._settings, session=session, signer=signer, clock=good._clock, breaker=never_open())

    async def test_a_key_that_fails_leaves_a_delivery_unprocessed(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """Nothing is POSTed; reading says that the API cannot be asked."""
        server = await start_raw(token_answer())
        settings = make_client(server.base_url, session, tmp_path)._settings
        key = FailingKey()
        signer = MessageSigner(SignatureProfile(), key, lambda: 0)
        client = CardApiClient(
            settings, session=session, signer=signer, clock=UpstreamClock(MachineClock()), breaker=never_open()
        )
        key.works = False
        assert await deliver_something(client) == Delivery(V.NOT_PROCESSED, None)
        with pytest.raises(Unavailable, match="could not be signed"):
            await client.customer_status(str(uuid.uuid4()), timeout=SOON)
        assert len(server.received) == 1
