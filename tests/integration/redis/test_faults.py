"""Faults of Redis: one lost response is repeated without another effect, and all else becomes ``Unavailable``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore, ClaimOutcome, Lease
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import SUBMISSION, assert_unavailable, claim_granted, claim_of, open_store, sign
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import RedisServer
from tests.support.short_deadlines import short_deadlines


async def _claimed(store: ChallengeStore) -> Lease:
    return await claim_granted(store, claim_of())


async def _forwarding(store: ChallengeStore) -> Lease:
    return (await sign(store, claim_of())).lease


# --- lost responses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "move", "state", "attempts"),
    [
        (_claimed, lambda store, lease: store.record_signature(lease, SUBMISSION), ChallengeState.FORWARDING, 1),
        (
            _claimed,
            lambda store, lease: store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE),
            ChallengeState.RELEASED,
            0,
        ),
        (
            _forwarding,
            lambda store, lease: store.defer(lease, RecordCode.CARD_API_BUSY, timedelta(0)),
            ChallengeState.SIGNED,
            1,
        ),
        (
            _forwarding,
            lambda store, lease: store.settle(lease, ChallengeState.VERIFIED, None),
            ChallengeState.VERIFIED,
            1,
        ),
    ],
    ids=["record_signature", "release", "defer", "settle"],
)
async def test_move_is_made_once_after_lost_response(
    proxy: LossyProxy,
    before: Callable[[ChallengeStore], Awaitable[Lease]],
    move: Callable[[ChallengeStore, Lease], Awaitable[object]],
    state: ChallengeState,
    attempts: int,
) -> None:
    """The connection is closed after the commit, and the caller does not notice."""
    async with open_store(proxy.url) as store:
        lease = await before(store)
        proxy.lose_next()
        await move(store, lease)
        assert proxy.lost == 1
        record = await store.get(lease.id)
        assert record is not None
        assert (record.state, record.attempts, record.fencing_token) == (state, attempts, 1)


async def test_claim_returns_same_lease_after_lost_response(proxy: LossyProxy) -> None:
    """The repeated claim returns the lease that the first one created."""
    async with open_store(proxy.url) as store:
        await store.ping()
        proxy.lose_next()
        claimed = await store.claim(claim_of())
        assert proxy.lost == 1
        assert claimed.outcome is ClaimOutcome.GRANTED
        assert claimed.record.fencing_token == 1


async def test_begin_forwarding_counts_one_attempt_after_lost_response(proxy: LossyProxy) -> None:
    """The repeated call returns the lease that the first one created."""
    async with open_store(proxy.url) as store:
        lease = await _forwarding(store)
        await store.defer(lease, RecordCode.CARD_API_BUSY, timedelta(0))
        proxy.lose_next()
        held = await store.begin_forwarding(lease.id)
        assert proxy.lost == 1
        assert held is not None
        assert (held.record.attempts, held.lease.fencing_token) == (2, 2)


async def test_expire_returns_the_record_after_lost_response(proxy: LossyProxy, server: RedisServer) -> None:
    """The caller needs the record, to write an event."""
    async with open_store(proxy.url) as store:
        lease = await claim_granted(store, claim_of())
        await store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE)
        server.command("HSET", f"signer:{{s{lease.id[:2]}}}:challenge:{lease.id[2:]}", "expires_at", 1)
        proxy.lose_next()
        expired = await store.expire(lease.id)
        assert proxy.lost == 1
        assert expired is not None
        assert expired.code == RecordCode.NOT_SIGNED


async def test_reads_succeed_after_lost_response(proxy: LossyProxy) -> None:
    """Each is repeated once."""
    async with open_store(proxy.url) as store:
        lease = await _claimed(store)
        for call in (lambda: store.get(lease.id), lambda: store.due(10), store.ping):
            proxy.lose_next()
            await call()
        assert proxy.lost == 3


async def test_call_raises_unavailable_after_two_lost_responses(proxy: LossyProxy) -> None:
    """A call is repeated once. The signature was stored all the same, as the next claim shows."""
    async with open_store(proxy.url) as store:
        lease = await _claimed(store)
        proxy.lose_next(2)
        await assert_unavailable("closed the connection", store.record_signature(lease, SUBMISSION))
        assert proxy.lost == 2
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.PAST_SIGNING


# --- servers that are gone, hang, restart -----------------------------------------------------------------------------


async def test_killed_server_is_used_again_after_its_restart(server: RedisServer) -> None:
    """The service needs no restart."""
    async with open_store(server.tcp_url) as store:
        await store.ping()
        server.stop()
        await assert_unavailable("cannot be reached", store.claim(claim_of()))
        await assert_unavailable("cannot be reached", store.due(10))
        server.start()
        await store.ping()
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.GRANTED


async def test_call_succeeds_after_unnoticed_restart(server: RedisServer) -> None:
    """The connection, which broke while idle, and the forgotten scripts are replaced within the call."""
    async with open_store(server.url) as store:
        await store.ping()
        server.restart()
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.GRANTED


async def test_client_opens_while_server_is_down(server: RedisServer) -> None:
    """The service may start first."""
    server.stop()
    async with open_store(server.tcp_url) as store:
        await assert_unavailable("cannot be reached", store.ping())
        server.start()
        await store.ping()


async def test_late_responses_of_paused_server_reach_no_later_call(server: RedisServer) -> None:
    """Each call ends at its own deadline."""
    async with open_store(server.url) as store:
        mine, other = claim_of("nonce0001"), claim_of("nonce0002")
        await store.ping()
        server.pause()
        with short_deadlines(store, 0.5):
            await assert_unavailable("did not answer in time", store.claim(mine))
            await assert_unavailable("did not answer in time", store.get(mine.id))
        server.resume()
        assert (await store.claim(other)).record.id == other.id
        assert await store.get(other.id) is not None
        held = await store.claim(mine)
        assert (held.record.id, held.outcome) == (mine.id, ClaimOutcome.LEASED_ELSEWHERE)


async def test_response_to_cancelled_call_reaches_no_other_call(server: RedisServer) -> None:
    """The other callers get their own responses."""
    async with open_store(server.url) as store:
        await store.ping()
        server.pause()
        calls = [asyncio.create_task(store.claim(claim_of(f"nonce000{n}"))) for n in range(3)]
        await asyncio.sleep(0.05)
        calls[0].cancel()
        server.resume()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        for nonce, call in enumerate(calls[1:], start=1):
            assert (await call).record.id == claim_of(f"nonce000{nonce}").id


async def test_flushed_scripts_are_sent_again(server: RedisServer) -> None:
    """``NOSCRIPT`` makes the client send the source."""
    async with open_store(server.url) as store:
        server.command("SCRIPT", "FLUSH")
        held = await sign(store, claim_of())
        server.command("SCRIPT", "FLUSH")
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        record = await store.get(held.record.id)
        assert record is not None
        assert record.state is ChallengeState.VERIFIED
