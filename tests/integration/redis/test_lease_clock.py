"""Leases follow Redis's clock: no stored instant is changed here, a short lease just ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from signer.application.ports import ClaimOutcome
from signer.domain.errors import LeaseLost
from tests.support.challenge_stores import SUBMISSION, claim_granted, claim_of, open_store, sign
from tests.support.servers import RedisServer

SHORT = timedelta(milliseconds=500)


async def test_lease_ends_by_itself(server: RedisServer) -> None:
    """A claim that is repeated until the lease has ended is granted then."""
    async with open_store(server.url, lease=SHORT) as store:
        old = await claim_granted(store, claim_of())
        result = await store.claim(claim_of())
        while result.outcome is ClaimOutcome.LEASED_ELSEWHERE:
            await asyncio.sleep(0.01)
            result = await store.claim(claim_of())
        assert (result.outcome, result.record.fencing_token) == (ClaimOutcome.GRANTED, 2)
        with pytest.raises(LeaseLost):
            await store.record_signature(old, SUBMISSION)


async def test_delivery_becomes_due_when_its_lease_ends(server: RedisServer) -> None:
    """Recovery finds it then."""
    async with open_store(server.url, lease=SHORT) as store:
        held = await sign(store, claim_of())
        while not await store.due(1):  # noqa: ASYNC110 - Redis sends no signal
            await asyncio.sleep(0.01)
        taken = await store.begin_forwarding(held.record.id)
        assert taken is not None
        assert taken.lease.fencing_token == 2


async def test_record_instants_are_of_the_redis_clock(server: RedisServer) -> None:
    """On one machine both clocks are the same: the instants are now."""
    before = datetime.now(UTC)
    async with open_store(server.url) as store:
        claimed = await store.claim(claim_of())
    assert before <= claimed.record.created_at <= datetime.now(UTC)
