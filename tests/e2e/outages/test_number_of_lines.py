"""An outage writes a bounded number of log lines, however many requests and pending challenges there are."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.outages.course import Step
from tests.e2e.outages.keys import keys_to_break
from tests.e2e.outages.site import Line, OutageSite, outage_site

REQUESTS_PER_SECOND: Final = 30
PENDING: Final = 48
SECONDS: Final = 5.0
LINES_FOR_REQUEST: Final = 3
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


CASES: Final[dict[str, Step]] = {
    "redis_down": stop_redis,
    "card_api_down": stop_card_api,
    "card_api_503": fault(kind="status", status=503),
    "card_api_429": fault(kind="status", status=429),
    "card_api_sends_garbage": fault(kind="garbage"),
    "signatures_refused": fault(kind="refuse_signature"),
    "deliveries_refused": fault(kind="refuse_signature", route="sign"),
    "kms_throttled": lambda site: site.more_keys.kms.fail("ThrottlingException"),
}


@pytest.mark.heavy
@pytest.mark.needs("redis-server", "softhsm2-util")
@pytest.mark.parametrize("case", CASES)
async def test_outage_writes_three_lines_for_a_request_and_five_a_second(tmp_path: Path, case: str) -> None:
    """There are 30 requests a second, each second one with a new challenge, and 48 signatures that wait.

    While the KMS is throttled, the card API refuses the deliveries as before.
    """
    folder = tmp_path / "site"
    folder.mkdir(mode=0o700)
    with keys_to_break(tmp_path) as keys:
        async with outage_site(folder, keys) as site:
            waiting = await site.create_customers(PENDING)
            owner = keys.owner_in_kms if case == "kms_throttled" else None
            others = await site.create_customers(int(REQUESTS_PER_SECOND * SECONDS), owner)
            await site.set_faults(BUSY)
            skipped, began = len(site.read_lines()), time.monotonic()
            pending = await asyncio.gather(*(sign(site, customer, is_given=True) for customer in waiting))
            assert {state for _, state in pending} <= {"signed", "forwarding"}
            check(site.read_lines()[skipped:], time.monotonic() - began)

            skipped, began = len(site.read_lines()), time.monotonic()
            result = CASES[case](site)
            if isinstance(result, Awaitable):
                await result
            statuses = await load(site, others)
            seconds = time.monotonic() - began
            assert all(status != HTTPStatus.OK for status in statuses)
            check(site.read_lines()[skipped:], seconds)


async def load(site: OutageSite, customers: list[dict[str, Any]]) -> list[int]:
    """Send one request for each customer at a steady rate; return their statuses."""
    calls: list[asyncio.Task[tuple[int, str | None]]] = []
    for number, customer in enumerate(customers):
        calls.append(asyncio.create_task(sign(site, customer, is_given=bool(number % 2))))
        await asyncio.sleep(1 / REQUESTS_PER_SECOND)
    return [status for status, _ in await asyncio.gather(*calls)]


async def sign(site: OutageSite, customer: dict[str, Any], *, is_given: bool) -> tuple[int, str | None]:
    """Request a signature; return the status and the record's state."""
    fields = {"challenge": customer["challenge"]} if is_given else {}
    status, body = await site.sign(customer["id"], ownerId=customer["ownerId"], **fields)
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
    most = max(for_request.values(), key=len)
    assert len(most) <= LINES_FOR_REQUEST, most
    assert own.total() <= LINES_PER_SECOND * max(1.0, seconds), own
