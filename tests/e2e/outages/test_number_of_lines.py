"""An outage writes a bounded number of log lines, however many requests and pending challenges there are."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.outages.course import Step
from tests.e2e.outages.site import Line, OutageSite, outage_site

REQUESTS_PER_SECOND: Final = 30
PENDING: Final = 48
CUSTOMERS: Final = 16
SECONDS: Final = 5.0
LINES_FOR_REQUEST: Final = 3  # in the mean: the few requests that are tried before the breaker opens have more
LINES_PER_SECOND: Final = 5
SIGNED: Final = frozenset({"challenge.claimed", "challenge.signed"})
"""The audit trail of what is signed: the same lines as without an outage."""
ABOUT_REQUESTS: Final = ("http.", "challenge.")
BUSY: Final = {"kind": "status", "route": "sign", "status": 503}


def fault(**row: object) -> Step:
    """Return a step that sets a fault of the card API."""
    return lambda site: site.set_faults(row)


def stop_redis(site: OutageSite) -> None:
    """Kill Redis."""
    site.redis.stop()


def stop_card_api(site: OutageSite) -> object:
    """Refuse the connections of the service."""
    return site.close_front()


@pytest.mark.heavy
@pytest.mark.needs("redis-server")
@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(stop_redis, id="redis_down"),
        pytest.param(stop_card_api, id="card_api_down"),
        pytest.param(fault(kind="status", status=503), id="card_api_503"),
        pytest.param(fault(kind="refuse_signature"), id="signatures_refused"),
    ],
)
async def test_outage_writes_three_lines_for_a_request_and_five_a_second(tmp_path: Path, begin: Step) -> None:
    """There are 30 requests a second, and 48 signatures that wait for their delivery."""
    async with outage_site(tmp_path, http="answer_within = 2") as site:
        customers = await site.create_customers(PENDING + CUSTOMERS)
        await site.set_faults(BUSY)
        skipped, began = len(site.read_lines()), time.monotonic()
        pending = await asyncio.gather(*(sign(site, customer, is_given=True) for customer in customers[:PENDING]))
        assert {state for _, state in pending} <= {"signed", "forwarding"}
        check(site.read_lines()[skipped:], time.monotonic() - began)

        skipped, began = len(site.read_lines()), time.monotonic()
        result = begin(site)
        if result is not None:
            await result  # type: ignore[misc]
        statuses = await load(site, customers[PENDING:])
        seconds = time.monotonic() - began
        assert all(status >= 500 for status in statuses)
        check(site.read_lines()[skipped:], seconds)


async def load(site: OutageSite, customers: list[dict[str, Any]]) -> list[int]:
    """Send requests at a steady rate; return their statuses."""
    calls: list[asyncio.Task[tuple[int, str | None]]] = []
    for number in range(int(REQUESTS_PER_SECOND * SECONDS)):
        calls.append(asyncio.create_task(sign(site, customers[number % len(customers)], is_given=False)))
        await asyncio.sleep(1 / REQUESTS_PER_SECOND)
    return [status for status, _ in await asyncio.gather(*calls)]


async def sign(site: OutageSite, customer: dict[str, Any], *, is_given: bool) -> tuple[int, str | None]:
    """Request a signature; return the status and the record's state."""
    fields: dict[str, Any] = {"challenge": customer["challenge"]} if is_given else {}
    status, body = await site.sign(customer["id"], **fields)
    return status, body.get("state")


def check(lines: list[Line], seconds: float) -> None:
    """Assert that there are few lines: for each request, and of the outage's own."""
    for_request: defaultdict[str, list[str]] = defaultdict(list)
    own: Counter[str] = Counter()
    for line in lines:
        if line["event"] in SIGNED:
            continue
        if "request_id" in line and line["event"].startswith(ABOUT_REQUESTS):
            for_request[line["request_id"]].append(line["event"])
        else:
            own[line["event"]] += 1
    about_requests = sum(map(len, for_request.values()))
    assert about_requests <= LINES_FOR_REQUEST * len(for_request), max(for_request.values(), key=len)
    assert own.total() <= LINES_PER_SECOND * max(1.0, seconds), own
