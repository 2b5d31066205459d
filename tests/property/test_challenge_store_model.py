"""The scripts against the model: any sequence of calls, by any replica, at any time, gives what the fake gives.

Two replicas claim, sign, deliver, stall, repeat calls and wake up with leases that others have taken over. After each
step both stores have answered alike, and what must hold whatever happens is looked at: one signature for a nonce, no
final record changed, nothing due that cannot be moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from signer.adapters.redis_store.challenge_store import ForbiddenMove, RedisChallengeStore
from signer.adapters.redis_store.client import open_redis
from signer.adapters.redis_store.settings import RedisSettings
from signer.application.ports import ChallengeStore, Claim, Claimed, Held, Lease
from signer.domain.errors import LeaseLost
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import ChallengeRecord, Submission
from tests.challenge_stores import CUSTOMER, LEASE, OWNER, RETENTION, SETTINGS, VALID_FOR, RedisUnderTest, claim_of
from tests.fakes.challenge_store import FakeChallengeStore, Shelf
from tests.servers import RedisServer, valkey

OWNERS = (OWNER, AccountId(ChainId(324), "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"))
OTHER_CUSTOMER = "0191b1d6-4a4e-7c8e-9d4d-000000000000"
SUBMISSIONS = (Submission(b'{"one":"body"}', "one proof"), Submission(b'{"another":"body"}', "another proof"))
IDS = tuple(claim_of(owner=owner).id for owner in OWNERS)
SPANS = (timedelta(seconds=5), LEASE / 2, LEASE, VALID_FOR, timedelta(hours=1), RETENTION)
ENDS = (*[state for state in ChallengeState if state.is_final], ChallengeState.SIGNED, ChallengeState.CLAIMED)
LATEST_LEASES = 3

Call = Callable[[ChallengeStore, timedelta], Awaitable[object]]
"""A call on a store whose clock is ahead by so much."""

owners = st.sampled_from(OWNERS)
customers = st.sampled_from((*[CUSTOMER] * 5, OTHER_CUSTOMER))
ids = st.sampled_from(IDS)
lives = st.sampled_from((LEASE / 2, VALID_FOR, timedelta(hours=2)))
pauses = st.sampled_from((timedelta(0), timedelta(seconds=5), timedelta(hours=2)))


class Stores(RuleBasedStateMachine):
    """The fake and the real store, side by side."""

    server: ClassVar[RedisServer]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = self._runner.run(open_redis(RedisSettings(url=self.server.url)))
        self._world = RedisUnderTest(self._redis, self.server)
        self._shelf = Shelf()
        kept = replace(SETTINGS, prefix=self._world.prefix)
        self._real = RedisChallengeStore(self._redis, kept, new_token=lambda: self._token)
        self._fake = FakeChallengeStore(self._shelf, kept, new_token=lambda: self._token)
        self._token = ""
        self._calls = 0
        self._last: Call | None = None
        self._leases: list[Lease] = []
        self._seen: dict[str, ChallengeRecord] = {}

    def teardown(self) -> None:
        """Close the client."""
        self._runner.run(self._redis.close())
        self._runner.close()

    @rule(
        owner=owners,
        message=st.sampled_from("aaaaaab"),
        customer=customers,
        forward=st.booleans(),
        valid_for=lives,
    )
    def claim(self, owner: AccountId, message: str, customer: str, *, forward: bool, valid_for: timedelta) -> None:
        """Somebody asks for a signature."""
        claim = claim_of(
            message=message * 64,
            customer_id=customer,
            owner=owner,
            forward=forward,
            valid_for=valid_for,
        )

        self._make(_claim(claim))

    @rule(owner=owners, forward=st.booleans(), valid_for=lives, pause=pauses)
    def sign_and_defer(self, owner: AccountId, *, forward: bool, valid_for: timedelta, pause: timedelta) -> None:
        """Somebody asks, and the first attempt comes to nothing: what random single steps seldom reach."""
        answer = self._make(_claim(claim_of(owner=owner, forward=forward, valid_for=valid_for)))
        if isinstance(answer, Claimed) and (lease := answer.lease):
            self._make(lambda store, _: store.record_signature(lease, SUBMISSIONS[0]))
            self._make(lambda store, _: store.defer(lease, "card_api_busy", pause))

    @precondition(lambda self: self._leases)
    @rule(data=st.data(), submission=st.sampled_from(SUBMISSIONS))
    def record_signature(self, data: st.DataObject, submission: Submission) -> None:
        """A key has answered, perhaps long after its lease."""
        lease = self._any_lease(data)
        self._make(lambda store, _: store.record_signature(lease, submission))

    @precondition(lambda self: self._leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A key backend was down."""
        lease = self._any_lease(data)
        self._make(lambda store, _: store.release(lease, "key_backend_unavailable"))

    @precondition(lambda self: self._leases)
    @rule(data=st.data(), pause=pauses)
    def defer(self, data: st.DataObject, pause: timedelta) -> None:
        """The card API was busy."""
        lease = self._any_lease(data)
        self._make(lambda store, _: store.defer(lease, "card_api_busy", pause))

    @precondition(lambda self: self._leases)
    @rule(data=st.data(), state=st.sampled_from(ENDS), code=st.none() | st.just("a_reason"))
    def settle(self, data: st.DataObject, state: ChallengeState, code: str | None) -> None:
        """The card API said something final; or the program is wrong, and the state is not."""
        lease = self._any_lease(data)
        self._make(lambda store, _: store.settle(lease, state, code))

    @rule(challenge_id=ids)
    def begin_forwarding(self, challenge_id: str) -> None:
        """Recovery tries to take one over."""
        self._make(_begin_forwarding(challenge_id))

    @rule(challenge_id=ids)
    def expire(self, challenge_id: str) -> None:
        """Recovery tries to end one."""
        self._make(_expire(challenge_id))

    @rule(customer=customers, owner=owners)
    def find(self, customer: str, owner: AccountId) -> None:
        """Somebody asks without a challenge."""
        self._make(lambda store, _: store.find(customer, owner))

    @precondition(lambda self: self._last is not None)
    @rule()
    def repeat(self) -> None:
        """The last call's answer was lost."""
        assert self._last is not None
        self._both(self._last)

    @rule(by=st.sampled_from(SPANS))
    def wait(self, by: timedelta) -> None:
        """Time passes."""
        self._shelf.advance(by)
        self._runner.run(self._world.advance(by))

    @rule()
    def recover(self) -> None:
        """What is due can be moved, or is gone and is not due again: nothing blocks the index for ever."""
        for name in sorted(self._due(self._real)):
            if self._make(_begin_forwarding(name)) is None and self._make(_expire(name)) is None:
                assert self._runner.run(self._real.get(name)) is None
                assert name not in self._due(self._real)

    @invariant()
    def the_index_is_the_same(self) -> None:
        """What is due in one is due in the other, but for entries of records that are gone; they go when met."""
        due = {name for name in self._due(self._real) if self._runner.run(self._real.get(name)) is not None}
        assert due == self._due(self._fake)

    @invariant()
    def no_nonce_has_two_signatures_and_no_end_is_undone(self) -> None:
        """While a record is kept, its identity, signature and end never change; fence and attempts only grow."""
        before, self._seen = self._seen, {}
        for name in IDS:
            record = self._runner.run(self._real.get(name))
            if record is None:
                continue
            self._seen[name] = record
            old = before.get(name, record)
            assert _identity(record) == _identity(old)
            assert (record.fence, record.attempts, record.forward) >= (old.fence, old.attempts, old.forward)
            assert old.signature in {None, record.signature}
            assert (record.submission is None) or not record.state.is_final
            if old.state.is_final:
                assert (record.state, record.code, record.fence) == (old.state, old.code, old.fence)

    def _due(self, store: ChallengeStore) -> set[str]:
        names = self._runner.run(store.due(100))
        assert len(names) == len(set(names))
        return set(names)

    def _any_lease(self, data: st.DataObject) -> Lease:
        """Draw one of the leases that were handed out last; some of them have been taken over since."""
        return data.draw(st.sampled_from(self._leases[-LATEST_LEASES:][::-1]))

    def _make(self, call: Call) -> object:
        """Make a call of its own name on both."""
        self._calls += 1
        self._token = f"call-{self._calls}"
        self._last = call
        return self._both(call)

    def _both(self, call: Call) -> object:
        real = self._runner.run(_answer(call(self._real, timedelta(0))))
        fake = self._runner.run(_answer(call(self._fake, self._shelf.ahead)))
        assert _comparable(real) == _comparable(fake)
        lease = real.lease if isinstance(real, (Claimed, Held)) else None
        if lease is not None and lease not in self._leases:
            self._leases.append(replace(lease, remaining=timedelta(0)))
        return real


def _claim(claim: Claim) -> Call:
    def call(store: ChallengeStore, ahead: timedelta) -> Awaitable[object]:
        return store.claim(replace(claim, issued_at=claim.issued_at + ahead, expires_at=claim.expires_at + ahead))

    return call


def _begin_forwarding(challenge_id: str) -> Call:
    return lambda store, _: store.begin_forwarding(challenge_id)


def _expire(challenge_id: str) -> Call:
    return lambda store, _: store.expire(challenge_id)


async def _answer(call: Awaitable[object]) -> object:
    try:
        return await call
    except (LeaseLost, ForbiddenMove) as error:
        return type(error)


def _comparable(answer: object) -> object:
    """Take the instants out, which differ by the moment between two calls; that they are there is compared."""
    match answer:
        case Claimed(outcome, record, lease):
            return outcome, _comparable(record), lease and lease.fence
        case Held(record, lease, deliverable):
            return _comparable(record), lease.fence, lease.remaining > timedelta(0), deliverable
        case ChallengeRecord():
            return (
                *_identity(answer),
                *(answer.state, answer.code, answer.forward, answer.submission, answer.signature, answer.superseded_by),
                *(answer.attempts, answer.first_attempt_at is None, answer.fence, answer.leased_until is None),
            )
        case _:
            return answer


def _identity(record: ChallengeRecord) -> tuple[object, ...]:
    return record.id, record.customer_id, record.owner, record.message_hash


@pytest.fixture(scope="module")
def machine() -> Iterator[type[Stores]]:
    """One Valkey for all sequences; each has a prefix of its own."""
    with valkey() as server:
        Stores.server = server
        yield Stores


def test_the_scripts_do_what_the_model_does(machine: type[Stores]) -> None:
    """Any sequence of calls on the real store is answered as by the fake, and keeps the promises."""
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=30))
