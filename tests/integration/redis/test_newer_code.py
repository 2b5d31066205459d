"""Records that a newer or an older release wrote, as during a rolling upgrade."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from signer.domain.errors import RecordDamaged
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from tests.support.challenge_stores import claim_of, open_store, sign
from tests.support.servers import RedisServer


async def test_record_with_unknown_code_is_read_without_code(server: RedisServer) -> None:
    """Reading does not fail, and the stored code is not changed."""
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        key = f"signer:{{s{held.record.id[:2]}}}:challenge:{held.record.id[2:]}"
        server.command("HSET", key, "code", "code_of_a_newer_release")
        record = await store.get(held.record.id)
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.VERIFIED, None)
    assert server.command("HGET", key, "code") == "code_of_a_newer_release"


async def test_fields_of_a_newer_release_are_ignored_and_kept(server: RedisServer) -> None:
    """Its customer status is read as ``unknown``; a field that is not known here survives a move."""
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        key = f"signer:{{s{held.record.id[:2]}}}:challenge:{held.record.id[2:]}"
        server.command("HSET", key, "upstream_status", "status_of_a_newer_release", "newer_field", "1")
        record = await store.get(held.record.id)
        await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
    assert record is not None
    assert record.upstream_status is CustomerStatus.UNKNOWN
    assert server.command("HGET", key, "newer_field") == "1"


async def test_record_of_an_older_release_is_read_delivered_and_settled(server: RedisServer) -> None:
    """It lacks the fields that were added since."""
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(0))
        key = f"signer:{{s{held.record.id[:2]}}}:challenge:{held.record.id[2:]}"
        server.command("HDEL", key, "upstream_status", "refused_since")
        leased = await store.begin_forwarding(held.record.id)
        assert leased is not None
        assert (leased.record.upstream_status, leased.record.refused_since) == (None, None)
        settled = await store.settle(leased.lease, ChallengeState.VERIFIED, None)
    assert settled.state is ChallengeState.VERIFIED


@pytest.mark.parametrize(("hours", "is_damage"), [(23, False), (25, True)])
async def test_state_of_a_newer_release_is_damage_a_day_after_the_deadline(
    server: RedisServer, hours: int, is_damage: bool
) -> None:
    """Until then the newer release settles the record."""
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        key = f"signer:{{s{held.record.id[:2]}}}:challenge:{held.record.id[2:]}"
        deadline = int((time.time() - hours * 3600) * 1_000_000)
        server.command("HSET", key, "state", "state_of_a_newer_release", "expires_at", str(deadline))
        if is_damage:
            with pytest.raises(RecordDamaged):
                await store.expire(held.record.id)
        else:
            assert await store.expire(held.record.id) is None
            assert server.command("HGET", key, "state") == "state_of_a_newer_release"
