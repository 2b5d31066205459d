"""Damaged records, pointers and intents in Redis: nothing is signed or sent with them, and recovery ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_store import scripts
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.customer_intents import RedisCustomerIntents
from signer.application.ports import ClaimOutcome
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, LeaseLost, RecordDamaged, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    OWNER,
    SETTINGS,
    SUBMISSION,
    RedisUnderTest,
    assert_unavailable,
    bring_to,
    changed,
    claim_granted,
    claim_of,
    real_store,
    sign,
)
from tests.support.fakes.damage_log import FakeDamageLog
from tests.support.servers import RedisServer

UNSETTLED: Final = tuple(state for state in ChallengeState if not state.is_final)
REQUIRED: Final = (
    *("customer_id", "owner", "message_hash", "state", "forward", "issued_at", "expires_at", "attempts", "fence"),
    *("created_at", "updated_at"),
)
OPTIONAL: Final = ("first_attempt_at", "leased_until", "due_at")
TEXT: Final = (*REQUIRED, *OPTIONAL, "signature", "superseded_by")


@pytest.fixture
def under_test(redis: RedisCalls, server: RedisServer) -> RedisUnderTest:
    """Its records, and a method that lets time pass."""
    return RedisUnderTest(redis, server)


@pytest.fixture
def store(redis: RedisCalls, under_test: RedisUnderTest, log: FakeDamageLog) -> RedisChallengeStore:
    """A replica's store."""
    return real_store(redis, under_test.settings, damage_log=log)


def key_of(under_test: RedisUnderTest, challenge_id: str) -> str:
    """Return the key of a record."""
    return f"{under_test.settings.key_prefix}:{{s{challenge_id[:2]}}}:challenge:{challenge_id[2:]}"


def index_of(under_test: RedisUnderTest, challenge_id: str) -> str:
    """Return the key of a record's index."""
    return f"{under_test.settings.key_prefix}:{{s{challenge_id[:2]}}}:unsettled"


def pointer_of(under_test: RedisUnderTest) -> str:
    """Return the key of the pointer from the customer and the owner."""
    return f"{under_test.settings.key_prefix}:{{s{claim_of().id[:2]}}}:customer:{CUSTOMER}:{OWNER}"


async def take_over(store: RedisChallengeStore, challenge_id: str) -> None:
    """Do what recovery does, and expect the damage to be found."""

    async def begin_or_expire() -> None:
        if await store.begin_forwarding(challenge_id) is None:
            await store.expire(challenge_id)

    with pytest.raises(RecordDamaged):
        await begin_or_expire()


@pytest.mark.parametrize("state", UNSETTLED)
async def test_damaged_field_ends_takeover_with_code_and_alarm(
    store: RedisChallengeStore,
    under_test: RedisUnderTest,
    server: RedisServer,
    log: FakeDamageLog,
    state: ChallengeState,
) -> None:
    """Each field in turn, missing or garbage. The record leaves the index, loses its submission, and has a code."""
    garbages = "\u00e9 12", "12 \u00e9"
    cases = [*((name, None) for name in REQUIRED), *((name, garbage) for name in TEXT for garbage in garbages)]
    for number, (name, garbage) in enumerate(cases):
        lease = await bring_to(store, state, nonce=f"nonce{number:04}")
        key = key_of(under_test, lease.id)
        if garbage is None:
            server.command("HDEL", key, name)
        else:
            server.command("HSET", key, name, garbage)
        server.command("ZADD", index_of(under_test, lease.id), 1, lease.id)
        await under_test.advance(timedelta(hours=1))  # past the deadline, so that every state is looked at
        assert await store.due(10) == [lease.id], name
        log.damaged.clear()
        await take_over(store, lease.id)
        assert log.damaged == [key], name
        assert await store.due(10) == [], name
        stored = server.command("HMGET", key, "state", "submission")
        assert stored == ["expired", None], name
        assert server.command("HGET", key, "code") in {"record_damaged", "not_signed"}, name
        server.command("DEL", key)


@pytest.mark.parametrize("name", [*REQUIRED, "everything"])
async def test_claim_on_damaged_record_signs_nothing(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, name: str
) -> None:
    """In any state, whatever field is missing, and also if only an unknown field remains."""
    for state in ChallengeState:
        claim = claim_of(f"nonce-{state.value}")
        lease = await bring_to(store, state, nonce=f"nonce-{state.value}")
        key = key_of(under_test, lease.id)
        if name == "everything":
            server.command("HSET", key, "unknown", 1)
            server.command("HDEL", key, *scripts.FIELDS, "token", "due_at")
        else:
            server.command("HDEL", key, name)
        before = server.command("HMGET", key, "signature", "submission", "attempts")
        for _ in range(2):
            with pytest.raises(RecordDamaged):
                await store.claim(claim)
        assert server.command("HMGET", key, "signature", "submission", "attempts") == before, state


@pytest.mark.parametrize("kind", ["SET", "LPUSH", "SADD"])
async def test_record_of_another_type_ends_with_alarm(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog, kind: str
) -> None:
    """It leaves the index, and no call signs, writes, or fails with an unexpected error."""
    lease = (await sign(store, claim_of())).lease
    key = key_of(under_test, lease.id)
    server.command("DEL", key)
    server.command(kind, key, "garbage")
    await under_test.advance(LEASE)
    assert await store.due(10) == [lease.id]
    await take_over(store, lease.id)
    assert await store.due(10) == []
    assert log.damaged == [key]
    for call in (
        store.get(lease.id),
        store.claim(claim_of()),
        store.settle(lease, ChallengeState.VERIFIED, None),
        store.defer(lease, RecordCode.CARD_API_BUSY, LEASE),
        store.release(lease, RecordCode.HANDED_BACK),
        store.record_signature(lease, SUBMISSION),
        store.expire(lease.id),
    ):
        with pytest.raises(RecordDamaged):
            await call
    assert server.command("TYPE", key) != "hash"


async def test_damaged_record_is_reported_to_its_readers(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog
) -> None:
    """``get`` raises an error that says what to do; ``find`` returns ``None``, so a new challenge is fetched."""
    held = await sign(store, claim_of())
    server.command("HSET", key_of(under_test, held.record.id), "owner", "garbage")
    with pytest.raises(RecordDamaged, match="Get a new challenge") as damage:
        await store.get(held.record.id)
    assert damage.value.code is ErrorCode.RECORD_DAMAGED
    assert log.damaged == [key_of(under_test, held.record.id)]
    assert await store.find(CUSTOMER, OWNER) is None


async def test_ended_record_is_read_if_its_other_fields_are_sound(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """The caller sees the final state and the code."""
    held = await sign(store, claim_of())
    server.command("HSET", key_of(under_test, held.record.id), "state", "\u00e9")
    await take_over(store, held.record.id)
    record = await store.get(held.record.id)
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.RECORD_DAMAGED)
    assert (await store.claim(claim_of())).outcome is ClaimOutcome.PAST_SIGNING


async def test_final_state_stays_if_record_is_damaged(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """Also if its id is in the index again."""
    lease = await bring_to(store, ChallengeState.VERIFIED)
    server.command("HDEL", key_of(under_test, lease.id), "owner", "fence")
    server.command("ZADD", index_of(under_test, lease.id), 1, lease.id)
    assert await store.due(10) == [lease.id]
    await take_over(store, lease.id)
    assert await store.due(10) == []
    assert server.command("HGET", key_of(under_test, lease.id), "state") == "verified"


async def test_oversized_field_is_damage(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """It is not sent to the replica that takes the record over."""
    held = await sign(store, claim_of())
    key = key_of(under_test, held.record.id)
    server.command("HSET", key, "submission", "x" * 1_000_000)
    await under_test.advance(LEASE)
    await take_over(store, held.record.id)
    assert server.command("HMGET", key, "state", "submission") == ["expired", None]


# --- a newer release --------------------------------------------------------------------------------------------------


async def test_state_of_newer_release_is_left_to_it(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog
) -> None:
    """Callers get 503, recovery leaves the record alone, and nothing is signed or changed."""
    held = await sign(store, claim_of())
    key = key_of(under_test, held.record.id)
    server.command("HSET", key, "state", "state_of_a_newer_release")
    await under_test.advance(timedelta(hours=2))
    before = server.command("HGETALL", key)
    assert await store.due(10) == []
    assert await store.begin_forwarding(held.record.id) is None
    assert await store.expire(held.record.id) is None
    await assert_unavailable("newer release", store.get(held.record.id))
    await assert_unavailable("newer release", store.claim(claim_of()))
    with pytest.raises(LeaseLost):
        await store.settle(held.lease, ChallengeState.VERIFIED, None)
    assert server.command("HGETALL", key) == before
    assert server.command("ZCARD", index_of(under_test, held.record.id)) == 1
    assert (log.damaged, log.junk) == ([], [])


async def test_state_of_newer_release_is_damage_a_day_after_the_deadline(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, log: FakeDamageLog
) -> None:
    """Any release would have settled the record by then."""
    held = await sign(store, claim_of())
    key = key_of(under_test, held.record.id)
    server.command("HSET", key, "state", "state_of_a_newer_release")
    for field in ("expires_at", "updated_at", "created_at"):
        server.command("HINCRBY", key, field, -timedelta(days=2) // timedelta(microseconds=1))
    await under_test.advance(LEASE)
    assert await store.due(10) == [held.record.id]
    await take_over(store, held.record.id)
    assert server.command("HMGET", key, "state", "code") == ["expired", "record_damaged"]
    assert log.damaged == [key]


# --- signatures -------------------------------------------------------------------------------------------------------


async def test_signature_that_is_not_in_the_body_is_not_shown(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """Neither before nor after the record is settled as ``signature_damaged``."""
    held = await sign(store, claim_of())
    server.command("HSET", key_of(under_test, held.record.id), "signature", "another")
    record = await store.get(held.record.id)
    assert record is not None
    assert record.signature is None
    settled = await store.settle(held.lease, ChallengeState.REJECTED, RecordCode.SIGNATURE_DAMAGED)
    assert settled.signature is None


async def test_signature_changed_before_repeated_call_is_not_sent(
    redis: RedisCalls, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """The reply of ``record_signature`` was lost. The replica gives the record up, and a takeover checks it."""
    lease = await claim_granted(real_store(redis, under_test.settings), claim_of())
    store = real_store(redis, under_test.settings, lambda: "the same call")
    await store.record_signature(lease, SUBMISSION)
    server.command("HSET", key_of(under_test, lease.id), "submission", SUBMISSION.body.replace(b"an owner", b"another"))
    with pytest.raises(LeaseLost):
        await store.record_signature(lease, SUBMISSION)


# --- pointers and intents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", ["", "garbage", "\u00e9", "zz" + "0" * 32, "3f" + "0" * 32, "f" * 34, "0" * 1_000])
async def test_pointer_with_garbage_finds_nothing_and_is_replaced(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer, garbage: str
) -> None:
    """The next challenge of the customer is found again."""
    await claim_granted(store, claim_of())
    server.command("SET", pointer_of(under_test), garbage)
    assert await store.find(CUSTOMER, OWNER) is None
    second = claim_of("nonce0002", message="b" * 64)
    await claim_granted(store, second)
    found = await store.find(CUSTOMER, OWNER)
    assert found is not None
    assert found.id == second.id


async def test_pointer_of_another_type_finds_nothing_and_is_replaced(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """A claim writes over it."""
    server.command("LPUSH", pointer_of(under_test), "garbage")
    assert await store.find(CUSTOMER, OWNER) is None
    await claim_granted(store, claim_of())
    assert await store.find(CUSTOMER, OWNER) is not None


async def test_pointer_to_record_of_another_customer_finds_nothing(
    store: RedisChallengeStore, under_test: RedisUnderTest, server: RedisServer
) -> None:
    """Of another customer, and of another owner on the same shard."""
    others = (
        claim_of("nonce0002", customer_id="0191b1d6-4a4e-7c8e-9d4d-000000000000"),
        claim_of("nonce0003", owner=replace(OWNER, chain=AccountId.parse(f"eip155:1:{OWNER.address}").chain)),
    )
    for other in others:
        await claim_granted(store, other)
        server.command("SET", pointer_of(under_test), other.id)
        assert await store.find(CUSTOMER, OWNER) is None


@pytest.mark.parametrize("garbage", ["", "garbage", "\u00e9", "../../v1/keys"])
async def test_damaged_intent_is_a_typed_error_and_an_alarm(
    redis: RedisCalls, server: RedisServer, log: FakeDamageLog, garbage: str
) -> None:
    """Its customer's id is garbage, or its key has another type."""
    intents = RedisCustomerIntents(redis, SETTINGS, log)
    intent = CustomerIntent(OWNER, "alice", OWNER)
    key = f"signer:{{s{intent.id[:2]}}}:intent:{intent.id[2:]}"
    await intents.complete(intent, CUSTOMER)
    server.command("HSET", key, "customer_id", garbage)
    for _ in range(2):
        with pytest.raises(RecordDamaged, match="delete it"):
            await intents.begin(intent)
        server.command("DEL", key)
        server.command("SET", key, garbage)
    assert log.damaged == [key, key]


async def test_expired_claim_is_refused_as_expired_with_replicas(redis: RedisCalls) -> None:
    """The script returns no record then, so there is nothing that replicas would have to confirm."""
    store = real_store(redis, changed(SETTINGS, wait_for_replicas=1, wait_timeout=timedelta(milliseconds=1)))
    with pytest.raises(Unavailable, match="expired by the store's clock"):
        await store.claim(claim_of(valid_for=timedelta(seconds=-1)))
