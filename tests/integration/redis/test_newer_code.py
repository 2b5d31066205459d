"""A record with a code that only a newer release knows, as during a rolling upgrade."""

from __future__ import annotations

from signer.domain.lifecycle import ChallengeState
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
