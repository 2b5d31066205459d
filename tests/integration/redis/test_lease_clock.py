"""Leases live by Redis's clock: nothing here is moved by hand, a short lease just ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from signer.application.ports import ClaimOutcome
from signer.domain.errors import LeaseLost
from tests.support.challenge_stores import SETTINGS, SUBMISSION, claim_mine, claim_of, open_store, sign
from tests.support.servers import RedisServer

SHORT = timedelta(milliseconds=500)


async def test_a_short_lease_ends_by_itself(server: RedisServer) -> None:
    """A claim that is asked for again and again is given to the next one once its lease is over."""
    async with open_store(server.url, replace(SETTINGS, lease=SHORT)) as store:
        old = await claim_mine(store, claim_of())
        answer = await store.claim(claim_of())
        while answer.outcome is ClaimOutcome.LEASED_ELSEWHERE:
            await asyncio.sleep(0.01)
            answer = await store.claim(claim_of())
        assert (answer.outcome, answer.record.fencing_token) == (ClaimOutcome.GRANTED, 2)
        with pytest.raises(LeaseLost):
            await store.record_signature(old, SUBMISSION)


async def test_a_delivery_becomes_due_by_itself(server: RedisServer) -> None:
    """Recovery finds it when its lease has ended."""
    async with open_store(server.url, replace(SETTINGS, lease=SHORT)) as store:
        held = await sign(store, claim_of())
        while not await store.due(1):  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0.01)
        taken = await store.begin_forwarding(held.record.id)
        assert taken is not None
        assert taken.lease.fencing_token == 2


async def test_instants_are_of_redis_and_span_what_was_claimed(server: RedisServer) -> None:
    """On one machine the two clocks are one: the record's instants are now."""
    before = datetime.now(UTC)
    async with open_store(server.url) as store:
        claimed = await store.claim(claim_of())
    assert before <= claimed.record.created_at <= datetime.now(UTC)
