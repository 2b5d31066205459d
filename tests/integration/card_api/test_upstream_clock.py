"""``Date`` tells how far the API's clock and ours are apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest

from signer.domain.errors import BadUpstream
from tests.integration.card_api.calling import (
    CUSTOMER,
    SOON,
    deliver_something,
    make_client,
)
from tests.integration.card_api.conftest import StartRaw
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
        assert client.clock_skew_seconds is None
        await client.check()
        assert client.clock_skew_seconds == pytest.approx(ahead, abs=2)

    async def test_a_date_that_is_none_is_passed_over(
        self, session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path
    ) -> None:
        """It costs nothing else."""
        server = await start_raw(token_answer().replace(b"\r\n\r\n", b"\r\nDate: today\r\n\r\n", 1))
        client = make_client(server.base_url, session, tmp_path)
        await client.check()
        assert client.clock_skew_seconds is None

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
