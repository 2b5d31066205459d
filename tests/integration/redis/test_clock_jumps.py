"""Redis's clock is set ahead and back during the moves: the guarantees hold, and every challenge becomes final."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from signer.adapters.redis_store.challenge_store import longest_wait
from signer.application.ports import ChallengeStore, ClaimOutcome
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    MAX_AGE,
    OWNER,
    RETENTION,
    SETTINGS,
    SUBMISSION,
    VALID_FOR,
    assert_unavailable,
    claim_granted,
    claim_of,
    open_store,
    sign,
)
from tests.support.jumping_clock import JumpingClock, valkey_with_clock
from tests.support.servers import RedisServer

pytestmark = pytest.mark.needs("faketime")
Clocked = tuple[RedisServer, JumpingClock]
AN_HOUR = timedelta(hours=1)
A_YEAR = timedelta(days=365)
A_SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def only() -> Iterator[Clocked]:
    """A Valkey with its own clock, for the module."""
    with valkey_with_clock() as clocked:
        yield clocked


@pytest.fixture
def clocked(only: Clocked) -> Clocked:
    """The same, empty, its clock set right."""
    server, clock = only
    clock.set(timedelta(0))
    server.command("FLUSHALL")
    return only


async def _deferred(store: ChallengeStore) -> str:
    held = await sign(store, claim_of(valid_for=timedelta(days=2)))
    await store.defer(held.lease, RecordCode.CARD_API_BUSY, timedelta(seconds=5))
    return held.record.id


async def _forwarding(store: ChallengeStore) -> str:
    return (await sign(store, claim_of(valid_for=timedelta(days=2)))).record.id


@pytest.mark.parametrize("by", [A_SECOND, -A_SECOND, AN_HOUR, -AN_HOUR, A_YEAR, -A_YEAR])
def test_scripts_see_the_changed_clock(clocked: Clocked, by: timedelta) -> None:
    """Otherwise no other test here would prove anything."""
    server, clock = clocked
    before = int(server.command("EVAL", "return redis.call('TIME')", 0)[0])
    clock.jump(by)
    after = int(server.command("EVAL", "return redis.call('TIME')", 0)[0])
    assert 0 <= after - before - by.total_seconds() < 30


async def test_expiry_of_keys_follows_the_changed_clock(clocked: Clocked) -> None:
    """Set back, a key is kept longer; set ahead, it is deleted, and no clock brings it back."""
    server, clock = clocked
    server.command("SET", "key", 1, "PX", 3_600_000)
    clock.set(-AN_HOUR)
    assert server.command("PTTL", "key") > 7_000_000
    clock.set(AN_HOUR + A_SECOND)
    while server.command("DBSIZE"):  # noqa: ASYNC110 - Redis sends no signal when it deletes a key
        await asyncio.sleep(0.01)
    clock.set(timedelta(0))
    assert server.command("EXISTS", "key") == 0


async def test_clock_set_ahead_ends_lease_and_refuses_its_holder(clocked: Clocked) -> None:
    """The holder's fencing token is refused, also after the clock is right again."""
    server, clock = clocked
    async with open_store(server.url) as store:
        old = await claim_granted(store, claim_of())
        clock.jump(LEASE)
        new = await claim_granted(store, claim_of())
        clock.set(timedelta(0))
        with pytest.raises(LeaseLost):
            await store.record_signature(old, SUBMISSION)
        assert (await store.record_signature(new, SUBMISSION)).record.fencing_token == new.fencing_token == 2


@pytest.mark.parametrize("back", [A_SECOND, LEASE - A_SECOND])
async def test_clock_set_back_by_less_than_a_lease_keeps_the_lease(clocked: Clocked, back: timedelta) -> None:
    """A small correction of the clock ends no lease."""
    server, clock = clocked
    async with open_store(server.url) as store:
        lease = await claim_granted(store, claim_of())
        clock.jump(-back)
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.LEASED_ELSEWHERE
        assert (await store.record_signature(lease, SUBMISSION)).record.fencing_token == 1


@pytest.mark.parametrize("back", [LEASE + A_SECOND, AN_HOUR, A_YEAR])
async def test_clock_set_back_by_more_than_a_lease_allows_takeover(clocked: Clocked, back: timedelta) -> None:
    """The next claim is granted; the old holder, if it is still alive, is refused."""
    server, clock = clocked
    async with open_store(server.url) as store:
        old = await claim_granted(store, claim_of())
        clock.jump(-back)
        new = await claim_granted(store, claim_of())
        with pytest.raises(LeaseLost):
            await store.record_signature(old, SUBMISSION)
        assert new.fencing_token == 2
        assert new.remaining == LEASE


@pytest.mark.parametrize("leave", [_forwarding, _deferred])
async def test_due_returns_deliveries_after_clock_was_set_back_by_a_day(clocked: Clocked, leave: object) -> None:
    """The clock was a day ahead: the index would return them a day later."""
    server, clock = clocked
    clock.set(timedelta(days=1))
    async with open_store(server.url) as store:
        assert callable(leave)
        name = await leave(store)
        assert await store.due(1) == []
        clock.set(timedelta(0))
        assert await store.due(1) == [name]
        held = await store.begin_forwarding(name)
        assert held is not None
        assert (held.lease.fencing_token, held.lease.remaining) == (2, LEASE)
        assert await store.due(1) == []
        await store.settle(held.lease, ChallengeState.VERIFIED, None)


async def test_due_returns_overdue_ids_before_misplaced_ones(clocked: Clocked) -> None:
    """Challenges that no clock delayed do not wait for the others."""
    server, clock = clocked
    async with open_store(server.url) as store:
        clock.set(timedelta(days=1))
        await sign(store, claim_of("nonce0001", valid_for=timedelta(days=2)))
        clock.set(-LEASE)
        due = await sign(store, claim_of("nonce0002"))
        clock.set(A_SECOND)
        assert await store.due(1) == [due.record.id]
        assert len(await store.due(2)) == 2


async def test_nonce_forgotten_by_clock_set_ahead_is_not_signed_again(clocked: Clocked) -> None:
    """After the retention Redis deletes the record; no message with that nonce is claimed then."""
    server, clock = clocked
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        clock.jump(RETENTION + A_SECOND)
        assert await store.get(held.record.id) is None
        for message in "ab":
            await assert_unavailable("compare the clocks", store.claim(claim_of(message=message * 64)))


async def test_record_is_kept_until_its_challenge_expires(clocked: Clocked) -> None:
    """It was signed by a clock that was behind by the retention and is then corrected."""
    server, clock = clocked
    clock.set(-RETENTION)
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        clock.set(A_SECOND)
        assert (await store.claim(claim_of(message="b" * 64))).outcome is ClaimOutcome.NONCE_REUSED
        clock.jump(VALID_FOR + A_SECOND)
        assert await store.get(held.record.id) is None


async def test_clock_set_past_retention_and_back_forgets_a_nonce(clocked: Clocked) -> None:
    """The limit that docs/redis.md states."""
    server, clock = clocked
    async with open_store(server.url) as store:
        await sign(store, claim_of())
        clock.set(RETENTION + A_SECOND)
        assert await store.find(CUSTOMER, OWNER) is None
        assert await store.get(claim_of().id) is None
        clock.set(timedelta(0))
        assert (await claim_granted(store, claim_of(message="b" * 64))).fencing_token == 1


async def test_challenge_expires_when_clock_jumps_past_its_deadline(clocked: Clocked) -> None:
    """It stays expired when the clock is set back."""
    server, clock = clocked
    async with open_store(server.url) as store:
        held = await sign(store, claim_of(forward=False))
        clock.jump(VALID_FOR)
        assert await store.due(1) == [held.record.id]
        assert await store.expire(held.record.id) is not None
        clock.set(-AN_HOUR)
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.PAST_SIGNING
        assert await store.begin_forwarding(held.record.id) is None
        record = await store.get(held.record.id)
        assert record is not None
        assert (record.state, record.signature) == (ChallengeState.EXPIRED, SUBMISSION.signature)


def test_longest_wait_exceeds_every_regular_wait() -> None:
    """The latest regular entry of the index is a challenge's deadline or the end of a lease."""
    assert longest_wait(SETTINGS, MAX_AGE) > MAX_AGE + SETTINGS.lease
