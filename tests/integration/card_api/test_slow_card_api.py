"""Readiness and the log while the card API is slow, or does not respond."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest

from signer.adapters.card_api.health import EVIDENCE_LASTS, OWN_CALL_WITHIN
from signer.application.ports import DeliveryVerdict
from signer.bootstrap.readiness_watch import EVERY
from signer.domain.errors import UpstreamTimeout
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import Calling


class Reports:
    """Records what is reported of an outage."""

    def __init__(self) -> None:
        self.causes: list[str] = []

    def down(self, cause: str, _reason: str, _lasted: timedelta | None) -> None:
        """Record that the card API is down."""
        self.causes.append(f"down: {cause}")

    def up(self, cause: str, _reason: str, _lasted: timedelta) -> None:
        """Record that it works again."""
        self.causes.append(f"up: {cause}")


@pytest.fixture
def reports(calling: Calling) -> Reports:
    """What is reported of the card API."""
    reports = Reports()
    calling.client.outage._listener = reports
    return reports


async def test_card_api_that_is_slower_than_a_check_is_not_down(calling: Calling, reports: Reports) -> None:
    """A check does not wait for its call, which goes on; calls that work are no outage."""
    assert await calling.client.check() is None
    calling.fault(FaultKind.LATENCY, "*", seconds=1.5)
    for _ in range(2):
        calling.monotonic.advance(EVIDENCE_LASTS.total_seconds())
        assert await calling.client.check() is None
        assert (await calling.deliver(*calling.customer())).verdict is DeliveryVerdict.ACCEPTED
        assert await calling.client.check() is None
    assert not calling.client.outage.is_failing
    assert reports.causes == []
    assert calling.calls("customer") == 3


async def test_card_api_that_is_slower_than_the_call_of_readiness_stays_down_until_it_is_quick(
    calling: Calling, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call of readiness without response is enough if no other was accepted. A late response ends no outage."""
    for module in ("client", "health"):
        monkeypatch.setattr(f"signer.adapters.card_api.{module}.OWN_CALL_WITHIN", timedelta(seconds=1))
    # Else the end of the check and that of its call are so near that a busy machine sees both at once.
    monkeypatch.setattr("signer.adapters.card_api.client._CHECK_WITHIN", timedelta(seconds=10))
    assert await calling.client.check() is None
    calling.fault(FaultKind.LATENCY, "*", seconds=2)
    for _ in range(2):
        calling.monotonic.advance(EVIDENCE_LASTS.total_seconds())
        detail = await calling.client.check() or ""
        assert re.fullmatch(
            r"timeout: The card API did not respond to readiness's own GET customer within .+ s", detail
        )
        assert reports.causes == ["down: timeout"]
        assert (await calling.deliver(*calling.customer())).verdict is DeliveryVerdict.ACCEPTED
    assert reports.causes == ["down: timeout"]
    calling.calm()
    calling.monotonic.advance(1)
    assert await calling.client.check() is None
    assert reports.causes == ["down: timeout", "up: timeout"]


async def test_replica_whose_token_is_being_fetched_says_why_that_takes_long(calling: Calling) -> None:
    """The failed attempts say more than that there is no token yet."""
    calling.fault(FaultKind.LATENCY, "token", seconds=30)
    with pytest.raises(UpstreamTimeout, match="issued no token in time"):
        await calling.client.check()
    assert not calling.client.outage.is_failing
    calling.client.outage.failed("unreachable", "An attempt failed.")
    with pytest.raises(UpstreamTimeout, match=r"unreachable: An attempt failed\."):
        await calling.client.check()


async def test_token_that_does_not_come_is_an_outage_before_its_call_ends(
    calling: Calling, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call for a token may be longer than that of readiness."""
    monkeypatch.setattr("signer.adapters.card_api.client.OWN_CALL_WITHIN", timedelta(seconds=0.1))
    calling.fault(FaultKind.LATENCY, "token", seconds=30)
    reason = r"timeout: The card API did not respond to POST auth/token within 0\.1 s\."
    with pytest.raises(UpstreamTimeout, match=reason):
        await calling.client.check()
    assert reports.causes == ["down: timeout"]


def test_card_api_that_hangs_is_named_within_15_seconds() -> None:
    """The last evidence, then a check, then its call."""
    assert EVIDENCE_LASTS + timedelta(seconds=EVERY) + OWN_CALL_WITHIN <= timedelta(seconds=15)


async def test_close_does_not_wait_for_the_call_of_readiness(calling: Calling) -> None:
    """A stop is not delayed by a card API that hangs."""
    calling.fault(FaultKind.LATENCY, "customer", seconds=60)
    await calling.client.check()  # returns before its call
    async with asyncio.timeout(OWN_CALL_WITHIN.total_seconds() / 2):
        await calling.client.aclose()
