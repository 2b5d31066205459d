"""The metrics of the real service: what traffic counts, and that no input adds a series."""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from eth_account import Account
from prometheus_client.parser import text_string_to_metric_families

from signer.bootstrap.metrics import serving_metrics
from signer.bootstrap.start_checks import StartFailed
from signer.observability import metrics as metrics_module
from signer.observability.event import OBSERVERS
from signer.observability.metrics import Metrics
from signer.simulator.faults import Fault, FaultKind
from signer.web.connections import PROBE_CONNECTIONS
from signer.web.metrics_endpoint import create_metrics_http
from tests.integration.service.conftest import StartSite
from tests.integration.service.site import OWNER, Site, open_site
from tests.support.http_server import HttpServer
from tests.support.servers import valkey

SIGN = "/v1/customers/{customerId}/challenge/sign"
Scraper = TestClient[Any, Any]


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """New metrics, read anew by each scrape."""
    monkeypatch.setattr(metrics_module, "_TEXT_REUSED_FOR", 0.0)
    monkeypatch.setattr(metrics_module, "_BACKLOG_REUSED_FOR", 0.0)
    return Metrics()


@asynccontextmanager
async def scraping(metrics: Metrics) -> AsyncIterator[Scraper]:
    """Run the listener, and yield a client of it."""
    async with TestClient(HttpServer(create_metrics_http(metrics.text))) as client:
        yield client


async def scrape(scraper: Scraper) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the value of each series by its name and labels."""
    async with scraper.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the key of a series."""
    return name, frozenset(labels.items())


async def test_every_accept_header_of_a_scrape_counts(metrics: Metrics) -> None:
    """RFC 9110 §5.3: a list may be sent in several header fields."""
    accept = [("Accept", "text/html"), ("Accept", "application/openmetrics-text;version=1.0.0")]
    async with scraping(metrics) as scraper, scraper.get("/metrics", headers=accept) as response:
        assert response.content_type == "application/openmetrics-text"


async def test_challenge_is_counted_in_each_of_its_steps(start: StartSite, metrics: Metrics) -> None:
    """Request, states, delivery, signature, calls to Redis and to the card API, keys and backlog."""
    site = await start(metrics=metrics)
    assert (await site.ask(*site.customer())).status == 200
    async with scraping(metrics) as scraper:
        series = await scrape(scraper)
    assert series[key("signer_http_requests_total", route=SIGN, method="POST", status="200")] == 1
    assert series[key("signer_http_request_duration_seconds_count", route=SIGN)] == 1
    for state in ("claimed", "signed", "verified"):
        assert series[key("signer_challenges_total", state=state)] == 1
    assert series[key("signer_deliveries_total", result="accepted")] == 1
    assert series[key("signer_signing_duration_seconds_count", backend="keystore")] == 2  # the self-test and this one
    assert series[key("signer_store_call_duration_seconds_count")] >= 3
    assert series[key("signer_card_api_call_duration_seconds_count", call="token")] == 1
    assert series[key("signer_card_api_call_duration_seconds_count", call="deliver")] == 1
    assert series[key("signer_keys", state="loaded")] == 1
    assert series[key("signer_challenges_unsettled")] == 0
    assert series[key("signer_challenges_oldest_unsettled_age_seconds")] == 0
    assert series[key("signer_log_writable")] == 1


async def test_backlog_counts_what_waits_for_delivery(start: StartSite, metrics: Metrics) -> None:
    """Its age is that of a challenge whose delivery is requested; one with ``forward: false`` only counts."""
    site = await start(metrics=metrics)
    async with scraping(metrics) as scraper:
        assert (await site.ask(*site.customer(), forward=False)).status == 200
        series = await scrape(scraper)
        assert series[key("signer_challenges_unsettled")] == 1
        assert series[key("signer_challenges_oldest_unsettled_age_seconds")] == 0
        site.fault(Fault(FaultKind.STATUS, "*", status=503))
        assert (await site.ask(*site.customer())).status == 202
        series = await scrape(scraper)
        assert series[key("signer_challenges_unsettled")] == 2
        assert series[key("signer_challenges_oldest_unsettled_age_seconds")] > 0
        assert series[key("signer_card_api_call_failures_total", cause="server_error")] >= 1
        assert series[key("signer_card_api_breaker_open")] == 1


async def test_scrape_works_while_redis_is_down(tmp_path: Path, metrics: Metrics) -> None:
    """The backlog is NaN; the failed calls of callers have their cause."""
    with valkey() as server:
        async with open_site(tmp_path, server, metrics=metrics) as site, scraping(metrics) as scraper:
            assert (await scrape(scraper))[key("signer_challenges_unsettled")] == 0
            server.stop()
            assert (await site.ask(*site.customer())).status == 503
            series = await scrape(scraper)
            assert math.isnan(series[key("signer_challenges_unsettled")])
            assert math.isnan(series[key("signer_challenges_oldest_unsettled_age_seconds")])
            assert series[key("signer_store_call_failures_total", cause="unreachable")] >= 1
            assert series[key("signer_challenges_refused_total", code="store_unavailable")] == 1


async def test_scrape_works_while_redis_hangs(tmp_path: Path, metrics: Metrics) -> None:
    """It waits for a second, not for Redis."""
    with valkey() as server:
        async with open_site(tmp_path, server, metrics=metrics), scraping(metrics) as scraper:
            server.pause()
            async with asyncio.timeout(8):
                assert math.isnan((await scrape(scraper))[key("signer_challenges_unsettled")])
            server.resume()


async def send_input(site: Site, count: int) -> None:
    """Send requests with owners, customers, paths, methods, tokens and bodies that the service has not seen."""
    for _ in range(count):
        chance = secrets.token_hex(8)
        owner = f"eip155:324:{Account.create().address}"
        path = f"/v1/customers/{uuid.uuid4()}/challenge/sign"
        known = {"Authorization": f"Bearer {site.token}"}
        for method, target, headers, body in (
            ("POST", path, known, {"ownerId": owner}),
            ("POST", path, known, {"ownerId": OWNER, "challenge": chance}),
            ("POST", path, known, {chance: chance}),
            ("GET", f"/{chance}", known | {"X-Request-Id": chance, "User-Agent": chance}, None),
            ("GET", f"/v1/challenges/{chance}", known, None),
            (f"X{chance}".upper(), "/v1/keys", known, None),
            ("POST", path, {"Authorization": f"Bearer cs_{chance}"}, {"ownerId": owner}),
        ):
            async with site.client.request(method, target, headers=headers, json=body) as response:
                assert 400 <= response.status < 500, (method, target, await response.text())
        customer_id, challenge = site.customer()
        assert (await site.ask(customer_id, challenge)).status == 200


async def test_input_adds_no_series(start: StartSite, metrics: Metrics) -> None:
    """After the first of each kind, the series are the same, and none has a value that a caller chose."""
    site = await start(metrics=metrics)
    async with scraping(metrics) as scraper:
        await send_input(site, 1)
        before = set(await scrape(scraper))
        await send_input(site, 30)
        assert set(await scrape(scraper)) == before


async def test_other_paths_and_methods_are_404(metrics: Metrics) -> None:
    """Also a request that cannot be parsed, and its connection is closed."""
    async with scraping(metrics) as scraper:
        for method, path in (("GET", "/"), ("POST", "/metrics"), ("GET", "/metrics/"), ("GET", "/healthz")):
            async with scraper.request(method, path) as response:
                assert (response.status, await response.read()) == (404, b"")
        reader, writer = await asyncio.open_connection("127.0.0.1", scraper.port)
        writer.write(b"NO HTTP\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 404 ")
        writer.close()


async def test_port_that_is_taken_ends_the_start() -> None:
    """The text names the settings."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartFailed, match=r"address already in use\. Correct metrics\.host and metrics\.port"):
            async with serving_metrics("127.0.0.1", taken.getsockname()[1]):
                pass


async def test_no_port_means_no_metrics() -> None:
    """Nothing listens, and no event is counted."""
    async with serving_metrics("127.0.0.1", None) as metrics:
        assert metrics is None
        assert OBSERVERS == []


async def test_idle_connections_above_the_limit_are_closed(
    start: StartSite, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers cannot use up the process's open files; the API has its own connections."""
    monkeypatch.setattr("signer.web.metrics_endpoint.MAX_CONNECTIONS", 1)
    site = await start(metrics=metrics)
    async with scraping(metrics) as scraper, AsyncExitStack() as stack:
        readers = []
        for _ in range(1 + PROBE_CONNECTIONS + 3):
            reader, writer = await asyncio.open_connection("127.0.0.1", scraper.port)
            stack.callback(writer.close)
            readers.append(reader)
        for reader in readers[-3:]:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
        assert (await site.ask(*site.customer())).status == 200
