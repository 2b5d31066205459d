"""``Date`` shows how far the card API's clock is from ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode, Unavailable
from tests.integration.card_api.calling import (
    CUSTOMER,
    SOON,
    deliver_something,
    make_client,
)
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import http, token_response

CHALLENGE = http(200, b'{"challenge": "YQ=="}')


class TestSkew:
    """The skew is observed from ``Date``."""

    @pytest.mark.parametrize("ahead", [-90, 0, 90])
    async def test_skew_is_observed(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, ahead: int
    ) -> None:
        """To about a second, because ``Date`` has no fraction."""
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
        server = await start_raw(token_response().replace(b"\r\n\r\n", f"\r\nDate: {date}\r\n\r\n".encode(), 1))
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        assert client._clock.skew is not None
        assert client._clock.skew.total_seconds() == pytest.approx(ahead, abs=2)

    async def test_malformed_date_is_ignored(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """The response is used."""
        server = await start_raw(token_response().replace(b"\r\n\r\n", b"\r\nDate: today\r\n\r\n", 1))
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        assert client._clock.skew is None

    @pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(hours=-2)])
    @pytest.mark.parametrize("lifetime", [600, -5, -7200])
    async def test_token_is_used_whatever_the_clocks_show(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, ahead: timedelta, lifetime: float
    ) -> None:
        """A fresh token is good, even if it has expired by a proxy's ``Date`` or by our clock; a 401 would tell."""
        date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        response = token_response(lifetime=lifetime)
        server = await start_raw(response.replace(b"\r\n\r\n", f"\r\nDate: {date}\r\n\r\n".encode(), 1), CHALLENGE)
        client = make_client(server.base_url, session, tmp_path)
        assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="

    async def test_rfc9110_10_2_3_retry_after_date_is_read_by_card_apis_clock(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """A minute from the card API's now, whatever our own clock shows."""
        now = datetime.now(UTC) - timedelta(hours=2)
        fields = (
            f"Date: {format_datetime(now, usegmt=True)}",
            f"Retry-After: {format_datetime(now + timedelta(seconds=60), usegmt=True)}",
        )
        server = await start_raw(token_response(), http(429, b"", *fields))
        delivery = await deliver_something(make_client(server.base_url, session, tmp_path))
        assert delivery.retry_after is not None
        assert delivery.retry_after.total_seconds() == pytest.approx(60, abs=2)


class TestCreated:
    """The card API refuses a request whose ``created`` lies in its future, even by a second."""

    @pytest.mark.parametrize("offset", [-20.0, -59.0, 0.0, 3600.0])
    async def test_delivery_is_accepted_despite_skew(self, start: StartCalling, offset: float) -> None:
        """The token response shows by how much ``created`` must be back-dated."""
        calling = await start({"clock_offset": offset})
        assert await calling.deliver(*calling.customer()) == DeliveryResult(DeliveryVerdict.ACCEPTED, 204)
        assert calling.outcomes("sign") == {"204": 1}

    @pytest.mark.parametrize("status", [400, 401])
    async def test_clock_that_is_set_back_costs_one_refusal(self, start: StartCalling, status: int) -> None:
        """The refusal shows the new time. A 401 is repeated at once, a 400 by the next attempt."""
        calling = await start({"request_signature_status": status})
        await calling.client.check()
        calling.simulator.state.clock.offset = -20.0
        customer_id, submission = calling.customer()
        if status == 400:
            refused = DeliveryResult(DeliveryVerdict.CREDENTIALS_REFUSED, 400)
            assert await calling.deliver(customer_id, submission) == refused
        assert await calling.deliver(customer_id, submission) == DeliveryResult(DeliveryVerdict.ACCEPTED, 204)
        assert calling.outcomes("sign") == {str(status): 1, "204": 1}
        assert await calling.deliver(*calling.customer()) == DeliveryResult(DeliveryVerdict.ACCEPTED, 204)
        assert calling.outcomes("sign") == {str(status): 1, "204": 2}

    async def test_backdating_is_limited(self, start: StartCalling) -> None:
        """Beyond the limit requests are refused, and an operator must set the clocks."""
        calling = await start({"clock_offset": -90.0})
        assert await calling.deliver(*calling.customer()) == DeliveryResult(DeliveryVerdict.CREDENTIALS_REFUSED, 400)
        with pytest.raises(Unavailable) as refusal:
            await calling.client.check()
        assert refusal.value.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
        warning = refusal.value.detail.rpartition("; ")[2].partition(":")[0]
        assert warning in {f"its clock is {seconds} s behind ours" for seconds in (89, 90, 91)}  # ``Date`` is cut
