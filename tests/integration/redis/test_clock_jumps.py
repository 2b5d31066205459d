"""Redis's clock is set, forward and back, while challenges are under way: the promises hold, and nothing is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from signer.application.ports import ChallengeStore, ClaimOutcome
from signer.domain.errors import LeaseLost
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    OWNER,
    RETENTION,
    SETTINGS,
    SUBMISSION,
    VALID_FOR,
    claim_mine,
    claim_of,
    fails_saying,
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
    """A Valkey with a clock of its own, for the module."""
    with valkey_with_clock() as clocked:
        yield clocked


@pytest.fixture
def clocked(only: Clocked) -> Clocked:
    """The same, empty, its clock on time."""
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
def test_the_time_that_scripts_see_follows(clocked: Clocked, by: timedelta) -> None:
    """Or every other test here would prove nothing."""
    server, clock = clocked
    before = int(server.command("EVAL", "return redis.call('TIME')", 0)[0])
    clock.jump(by)
    after = int(server.command("EVAL", "return redis.call('TIME')", 0)[0])
    assert 0 <= after - before - by.total_seconds() < 30


async def test_the_ends_of_keys_follow(clocked: Clocked) -> None:
    """They are instants: set back, a key lives longer; set ahead, it is gone, and comes back with no clock."""
    server, clock = clocked
    server.command("SET", "key", 1, "PX", 3_600_000)
    clock.set(-AN_HOUR)
    assert server.command("PTTL", "key") > 7_000_000
    clock.set(AN_HOUR + A_SECOND)
    while server.command("DBSIZE"):  # noqa: ASYNC110 - the server's own sweep sees it too
        await asyncio.sleep(0.01)
    clock.set(timedelta(0))
    assert server.command("EXISTS", "key") == 0


async def test_set_ahead_a_lease_is_over_and_its_holder_shut_out(clocked: Clocked) -> None:
    """He still works on it, and finds his fencing_token refused, also once the clock is right again."""
    server, clock = clocked
    async with open_store(server.url) as store:
        old = await claim_mine(store, claim_of())
        clock.jump(LEASE)
        new = await claim_mine(store, claim_of())
        clock.set(timedelta(0))
        with pytest.raises(LeaseLost):
            await store.record_signature(old, SUBMISSION)
        assert (await store.record_signature(new, SUBMISSION)).record.fencing_token == new.fencing_token == 2


@pytest.mark.parametrize("back", [A_SECOND, LEASE - A_SECOND])
async def test_set_back_a_little_a_lease_is_still_its_holders(clocked: Clocked, back: timedelta) -> None:
    """A clock that is corrected by less than a lease takes nothing from anybody."""
    server, clock = clocked
    async with open_store(server.url) as store:
        lease = await claim_mine(store, claim_of())
        clock.jump(-back)
        assert (await store.claim(claim_of())).outcome is ClaimOutcome.LEASED_ELSEWHERE
        assert (await store.record_signature(lease, SUBMISSION)).record.fencing_token == 1


@pytest.mark.parametrize("back", [LEASE + A_SECOND, AN_HOUR, A_YEAR])
async def test_set_back_a_lease_does_not_last_for_ever(clocked: Clocked, back: timedelta) -> None:
    """Whoever asks for a dead holder's challenge gets it; the holder, if he was not dead, is shut out."""
    server, clock = clocked
    async with open_store(server.url) as store:
        old = await claim_mine(store, claim_of())
        clock.jump(-back)
        new = await claim_mine(store, claim_of())
        with pytest.raises(LeaseLost):
            await store.record_signature(old, SUBMISSION)
        assert new.fencing_token == 2
        assert new.remaining == LEASE


@pytest.mark.parametrize("leave", [_forwarding, _deferred])
async def test_set_back_by_a_day_what_is_to_be_delivered_is_found(clocked: Clocked, leave: object) -> None:
    """A clock was a day ahead and is put right: the index names what it would have named tomorrow."""
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


async def test_what_is_due_goes_before_what_a_clock_misplaced(clocked: Clocked) -> None:
    """Those whom no clock has wronged do not wait for the others."""
    server, clock = clocked
    async with open_store(server.url) as store:
        clock.set(timedelta(days=1))
        await sign(store, claim_of("nonce0001", valid_for=timedelta(days=2)))
        clock.set(-LEASE)
        due = await sign(store, claim_of("nonce0002"))
        clock.set(A_SECOND)
        assert await store.due(1) == [due.record.id]
        assert len(await store.due(2)) == 2


async def test_a_nonce_that_the_clock_had_forgotten_is_not_signed_again(clocked: Clocked) -> None:
    """Set ahead past the retention, Redis drops the record; neither message of that nonce is claimed then."""
    server, clock = clocked
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
        clock.jump(RETENTION + A_SECOND)
        assert await store.get(held.record.id) is None
        for message in "ab":
            await fails_saying("compare the machines' clocks", store.claim(claim_of(message=message * 64)))


async def test_a_nonce_outlasts_its_challenge_where_the_clock_was_far_behind(clocked: Clocked) -> None:
    """Signed by a clock that is behind by the retention, which is then put right: its time is not over at once."""
    server, clock = clocked
    clock.set(-RETENTION)
    async with open_store(server.url) as store:
        held = await sign(store, claim_of())
        clock.set(A_SECOND)
        assert (await store.claim(claim_of(message="b" * 64))).outcome is ClaimOutcome.NONCE_REUSED
        clock.jump(VALID_FOR + A_SECOND)
        assert await store.get(held.record.id) is None


async def test_only_a_clock_that_goes_there_and_back_forgets_a_nonce(clocked: Clocked) -> None:
    """The limit that the documents state: past the retention, and back before the challenge's end."""
    server, clock = clocked
    async with open_store(server.url) as store:
        await sign(store, claim_of())
        clock.set(RETENTION + A_SECOND)
        assert await store.find(CUSTOMER, OWNER) is None
        assert await store.get(claim_of().id) is None
        clock.set(timedelta(0))
        assert (await claim_mine(store, claim_of(message="b" * 64))).fencing_token == 1


async def test_a_challenge_whose_deadline_was_jumped_over_ends(clocked: Clocked) -> None:
    """Signed and held back, then the clock passes its deadline: it is expired, and stays so when the clock returns."""
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


def test_nothing_legitimate_waits_for_longer_than_is_allowed() -> None:
    """The farthest that an entry of the index can be from now: the deadline of a challenge, or a lease's end."""
    assert SETTINGS.longest_wait > SETTINGS.max_age + SETTINGS.lease
