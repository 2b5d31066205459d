"""``Date`` tells how far the API's clock and ours are apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import BadUpstream
from tests.integration.card_api.calling import (
    CUSTOMER,
    SOON,
    Calling,
    deliver_something,
    make_client,
)
from tests.integration.card_api.conftest import StartCalling, StartRaw
from tests.integration.card_api.raw_server import http, token_answer

CHALLENGE = http(200, b'{"challenge": "YQ=="}')


class TestTheApisClock:
    """``Date`` tells how far the two clocks are apart."""

    @pytest.mark.parametrize("ahead", [-90, 0, 90])
    async def test_the_skew_is_known(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, ahead: int
    ) -> None:
        """To about a second, for ``Date`` has no fraction."""
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
        server = await start_raw(token_answer().replace(b"\r\n\r\n", f"\r\nDate: {date}\r\n\r\n".encode(), 1))
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        assert client._clock.skew is not None
        assert client._clock.skew.total_seconds() == pytest.approx(ahead, abs=2)

    async def test_a_date_that_is_none_is_passed_over(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """It costs nothing else."""
        server = await start_raw(token_answer().replace(b"\r\n\r\n", b"\r\nDate: today\r\n\r\n", 1))
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        assert client._clock.skew is None

    async def test_a_tokens_life_is_measured_by_the_apis_clock(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """An API whose clock is two hours behind gives tokens that look expired to ours; they are not."""
        behind = timedelta(hours=2)
        date = format_datetime(datetime.now(UTC) - behind, usegmt=True)
        answer = token_answer(lifetime=600 - behind.total_seconds())
        server = await start_raw(answer.replace(b"\r\n\r\n", f"\r\nDate: {date}\r\n\r\n".encode(), 1), CHALLENGE)
        client = make_client(server.base_url, session, tmp_path)
        assert await client.fetch_challenge(CUSTOMER, timeout=SOON) == "YQ=="

    async def test_a_token_that_has_expired_is_refused(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """By a clock that agrees with ours it is an answer that makes no sense."""
        server = await start_raw(token_answer(lifetime=-5))
        with pytest.raises(BadUpstream, match="expired"):
            await make_client(server.base_url, session, tmp_path).check()

    async def test_rfc9110_10_2_3_a_date_to_come_back_is_read_by_the_apis_clock(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """A minute from the API's now, wherever our own now is."""
        now = datetime.now(UTC) - timedelta(hours=2)
        fields = (
            f"Date: {format_datetime(now, usegmt=True)}",
            f"Retry-After: {format_datetime(now + timedelta(seconds=60), usegmt=True)}",
        )
        server = await start_raw(token_answer(), http(429, b"", *fields))
        delivery = await deliver_something(make_client(server.base_url, session, tmp_path))
        assert delivery.retry_after is not None
        assert delivery.retry_after.total_seconds() == pytest.approx(60, abs=2)


class TestRequestsAreNotFromTheFuture:
    """The API refuses a request whose ``created`` lies ahead of its clock, even by a second."""

    @pytest.mark.parametrize("offset", [-20.0, -59.0, 0.0, 3600.0])
    async def test_an_api_whose_clock_differs_takes_deliveries(self, start: StartCalling, offset: float) -> None:
        """The answer with the token has told by how much ``created`` has to be put back."""
        calling = await start({"clock_offset": offset})
        assert await calling.deliver(*calling.customer()) == DeliveryResult(DeliveryVerdict.ACCEPTED, 204)
        assert calling.outcomes("sign") == {"204": 1}

    async def test_a_clock_that_is_set_back_costs_one_refusal(self, calling: Calling) -> None:
        """The refusal brings the new time, and the same delivery is sent once more, under its key."""
        await calling.client.check()
        calling.simulator.state.clock.offset = -20.0
        customer_id, submission = calling.customer()
        assert await calling.deliver(customer_id, submission) == DeliveryResult(DeliveryVerdict.ACCEPTED, 204)
        assert calling.outcomes("sign") == {"401": 1, "204": 1}
        assert await calling.deliver(*calling.customer()) == DeliveryResult(DeliveryVerdict.ACCEPTED, 204)
        assert calling.outcomes("sign") == {"401": 1, "204": 2}

    async def test_nobody_is_followed_into_the_past_for_long(self, start: StartCalling) -> None:
        """Beyond the limit requests are refused, and it is for a person to set the clocks."""
        calling = await start({"clock_offset": -90.0})
        assert await calling.deliver(*calling.customer()) == DeliveryResult(DeliveryVerdict.CREDENTIALS_REFUSED, 401)
        said = await calling.client.check()
        assert said in {f"its clock is {seconds} s behind ours" for seconds in (89, 90, 91)}  # ``Date`` is cut
