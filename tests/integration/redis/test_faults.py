"""What a broken Redis does to the store: a typed error that says what to do, and nothing half-done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore, ClaimOutcome, Lease
from signer.domain.lifecycle import ChallengeState
from tests.support.challenge_stores import SUBMISSION, claim_mine, claim_of, fails_saying, open_store, sign
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import RedisServer

QUICK = timedelta(seconds=1)


async def _claimed(store: ChallengeStore) -> Lease:
    return await claim_mine(store, claim_of())


async def _forwarding(store: ChallengeStore) -> Lease:
    return (await sign(store, claim_of())).lease


# --- answers that are lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "move", "state", "attempts"),
    [
        (_claimed, lambda store, lease: store.record_signature(lease, SUBMISSION), ChallengeState.FORWARDING, 1),
        (_claimed, lambda store, lease: store.release(lease, "a_reason"), ChallengeState.RELEASED, 0),
        (_forwarding, lambda store, lease: store.defer(lease, "a_reason", timedelta(0)), ChallengeState.SIGNED, 1),
        (
            _forwarding,
            lambda store, lease: store.settle(lease, ChallengeState.VERIFIED, None),
            ChallengeState.VERIFIED,
            1,
        ),
    ],
    ids=["record_signature", "release", "defer", "settle"],
)
async def test_a_move_whose_answer_is_lost_is_made_once_and_answered(
    proxy: LossyProxy,
    before: Callable[[ChallengeStore], Awaitable[Lease]],
    move: Callable[[ChallengeStore, Lease], Awaitable[object]],
    state: ChallengeState,
    attempts: int,
) -> None:
    """The connection is cut behind the commit, and the caller notices nothing."""
    async with open_store(proxy.url) as store:
        lease = await before(store)
        proxy.lose_next()
        await move(store, lease)
        assert proxy.lost == 1
        record = await store.get(lease.id)
        assert record is not None
        assert (record.state, record.attempts, record.fencing_token) == (state, attempts, 1)


async def test_a_claim_whose_answer_is_lost_is_mine(proxy: LossyProxy) -> None:
    """It is not held by a holder who never heard of it."""
    async with open_store(proxy.url) as store:
        await store.ping()
        proxy.lose_next()
        claimed = await store.claim(claim_of())
        assert proxy.lost == 1
        assert claimed.outcome is ClaimOutcome.GRANTED
        assert claimed.record.fencing_token == 1


async def test_a_begin_whose_answer_is_lost_counts_one_attempt(proxy: LossyProxy) -> None:
    """The lease of the lost answer is handed out."""
    async with open_store(proxy.url) as store:
        lease = await _forwarding(store)
        await store.defer(lease, "card_api_busy", timedelta(0))
        proxy.lose_next()
        held = await store.begin_forwarding(lease.id)
        assert proxy.lost == 1
        assert held is not None
        assert (held.record.attempts, held.lease.fencing_token) == (2, 2)


async def test_an_expire_whose_answer_is_lost_gives_the_record(proxy: LossyProxy, server: RedisServer) -> None:
    """The caller has an event to write."""
    async with open_store(proxy.url) as store:
        lease = await claim_mine(store, claim_of())
        await store.release(lease, "a_reason")
        server.command("HSET", f"signer:{{s{lease.id[:2]}}}:challenge:{lease.id[2:]}", "expires_at", 1)
        proxy.lose_next()
        expired = await store.expire(lease.id)
        assert proxy.lost == 1
        assert expired is not None
        assert expired.code == "not_signed"


async def test_reading_survives_a_lost_answer(proxy: LossyProxy) -> None:
    """All readers, each once."""
    async with open_store(proxy.url) as store:
        lease = await _claimed(store)
        for call in (lambda: store.get(lease.id), lambda: store.due(10), store.ping):
            proxy.lose_next()
            await call()
        assert proxy.lost == 3


async def test_two_lost_answers_are_an_error(proxy: LossyProxy) -> None:
    """A call is repeated once; what it did stays done, and is found by whoever asks again."""
    async with open_store(proxy.url) as store:
        lease = await _claimed(store)
        proxy.lose_next(2)
        await fails_saying("cannot be reached", store.record_signature(lease, SUBMISSION))
        assert proxy.lost == 2
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.PAST_SIGNING


# --- servers that are gone, hang, restart -----------------------------------------------------------------------------


async def test_a_killed_server_is_unavailable_and_used_again_after_its_restart(server: RedisServer) -> None:
    """Nobody has to restart the service, however many connections it had open."""
    async with open_store(server.tcp_url) as store:
        await asyncio.gather(*(store.ping() for _ in range(10)))
        server.stop()
        await fails_saying("cannot be reached", store.claim(claim_of()))
        await fails_saying("cannot be reached", store.due(10))
        server.start()
        await asyncio.gather(*(store.ping() for _ in range(10)))
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.GRANTED


async def test_a_restart_that_nobody_saw_costs_nothing(server: RedisServer) -> None:
    """Connections that broke while they were idle, and scripts that are forgotten, are made anew within the call."""
    async with open_store(server.url) as store:
        await asyncio.gather(*(store.ping() for _ in range(10)))
        server.restart()
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.GRANTED


async def test_opening_works_while_the_server_is_down(server: RedisServer) -> None:
    """The service may start first."""
    server.stop()
    async with open_store(server.tcp_url) as store:
        await fails_saying("cannot be reached", store.ping())
        server.start()
        await store.ping()


async def test_a_hanging_server_is_given_up_and_its_late_answers_are_nobodys(server: RedisServer) -> None:
    """Each call ends by its own deadline; no later call reads the answer of an earlier one."""
    async with open_store(server.url, call_timeout=QUICK) as store:
        mine, other = claim_of("nonce0001"), claim_of("nonce0002")
        await store.ping()
        server.pause()
        await fails_saying("did not answer in time", store.claim(mine))
        await fails_saying("did not answer in time", store.get(mine.id))
        server.resume()
        assert (await store.claim(other)).record.id == other.id
        assert await store.get(other.id) is not None
        held = await store.claim(mine)
        assert (held.record.id, held.outcome) == (mine.id, ClaimOutcome.LEASED_ELSEWHERE)


async def test_a_cancelled_call_leaves_its_answer_to_nobody(server: RedisServer) -> None:
    """A caller that goes away does not shift the answers of those who stay."""
    async with open_store(server.url, connections=1) as store:
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


async def test_a_call_that_gets_no_connection_says_so(server: RedisServer) -> None:
    """The pool is bounded, and waiting for it too."""
    async with open_store(server.url, connections=1, pool_wait=QUICK) as store:
        await store.ping()
        server.pause()
        first = asyncio.create_task(store.ping())
        await asyncio.sleep(0)
        await fails_saying("Every connection", store.ping())
        server.resume()
        await first


async def test_flushed_scripts_are_sent_again(server: RedisServer) -> None:
    """``NOSCRIPT`` is answered with the source, for every script."""
    async with open_store(server.url) as store:
        server.command("SCRIPT", "FLUSH")
        held = await sign(store, claim_of())
        server.command("SCRIPT", "FLUSH")
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        record = await store.get(held.record.id)
        assert record is not None
        assert record.state is ChallengeState.VERIFIED
