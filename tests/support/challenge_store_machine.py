"""The scripts against the model, as a state machine: any sequence of calls has the results of the fake.

Three replicas claim, sign, deliver, pause, repeat calls and use leases that others have taken over. After each step
both stores have returned the same, and the invariants are checked: one signature for each nonce, no final record
changed, fencing tokens that only grow, nothing due that cannot be moved.

A subclass decides how time passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_store.challenge_store import ForbiddenMove
from signer.application.ports import ChallengeStore, Claim, ClaimResult, Lease, LeasedRecord
from signer.domain.errors import LeaseLost, Unavailable
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, Submission
from tests.support.challenge_stores import (
    CUSTOMER,
    LEASE,
    OWNER,
    SETTINGS,
    VALID_FOR,
    RedisUnderTest,
    changed,
    claim_of,
    real_store,
)
from tests.support.fakes.challenge_store import FakeChallengeStore, Shelf
from tests.support.servers import RedisServer

OWNERS = (OWNER, AccountId(ChainId(324), "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"))
OTHER_CUSTOMER = "0191b1d6-4a4e-7c8e-9d4d-000000000000"
REPLICAS = 3
SUBMISSIONS = tuple(Submission(b'{"signature":"%s"}' % proof, proof.decode()) for proof in (b"one", b"another"))
ENDS = (*[state for state in ChallengeState if state.is_final], ChallengeState.SIGNED, ChallengeState.CLAIMED)
LATEST_LEASES = 3

Call = Callable[[ChallengeStore, bool], Awaitable[object]]
"""A call on a store; the flag says whether that is the fake."""

owners = st.sampled_from(OWNERS)
customers = st.sampled_from((*[CUSTOMER] * 5, OTHER_CUSTOMER))
replicas = st.integers(0, REPLICAS - 1)
lives = st.sampled_from((LEASE / 2, VALID_FOR, timedelta(hours=2)))
pauses = st.sampled_from((timedelta(0), timedelta(seconds=5), timedelta(hours=2)))


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease and the replica that has it."""

    replica: int
    lease: Lease


class ChallengeStoreMachine(RuleBasedStateMachine):
    """The fake and the real store, side by side, each seen by three replicas."""

    server: ClassVar[RedisServer]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = self._runner.run(open_redis(changed(SETTINGS, url=self.server.url)))
        self._source = RedisUnderTest(self._redis, self.server)
        self._shelf = Shelf()
        self._token = ""
        kept = self._source.settings
        self._reals = [real_store(self._redis, kept, self._current_token) for _ in range(REPLICAS)]
        self._fakes = [
            FakeChallengeStore(self._shelf, kept, now=self._now, new_token=self._current_token) for _ in range(REPLICAS)
        ]
        self._calls = 0
        self._last: tuple[int, Call] | None = None
        self._holdings: list[Holding] = []
        self._seen: dict[str, ChallengeRecord] = {}

    def teardown(self) -> None:
        """Close the client."""
        self._runner.run(self._redis.close())
        self._runner.close()

    # --- for subclasses -----------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        """Return the fake's time, without what its shelf was advanced by."""
        raise NotImplementedError

    def _claim(self, claim: Claim) -> Call:
        """Return the call that claims."""
        raise NotImplementedError

    def _nonce(self, owner: AccountId) -> str:
        """Return the owner's current nonce."""
        return f"nonce-of-{owner.address}"

    def _ids(self) -> list[str]:
        """Return the ids of all challenges."""
        return [claim_of(self._nonce(owner), owner=owner).id for owner in OWNERS]

    # --- what replicas do ---------------------------------------------------------------------------------------------

    @rule(
        replica=replicas,
        owner=owners,
        message=st.sampled_from("aaaaaab"),
        customer=customers,
        forward=st.booleans(),
        valid_for=lives,
    )
    def claim(
        self, replica: int, owner: AccountId, message: str, customer: str, *, forward: bool, valid_for: timedelta
    ) -> None:
        """Claim."""
        claim = claim_of(
            self._nonce(owner),
            message=message * 64,
            customer_id=customer,
            owner=owner,
            forward=forward,
            valid_for=valid_for,
        )
        self._make(replica, self._claim(claim))

    @rule(replica=replicas, owner=owners, forward=st.booleans(), valid_for=lives, pause=pauses)
    def sign_and_defer(
        self, replica: int, owner: AccountId, *, forward: bool, valid_for: timedelta, pause: timedelta
    ) -> None:
        """Claim, sign and defer: random single steps seldom reach this."""
        claim = claim_of(self._nonce(owner), owner=owner, forward=forward, valid_for=valid_for)
        result = self._make(replica, self._claim(claim))
        if isinstance(result, ClaimResult) and (lease := result.lease):
            self._make(replica, lambda store, _: store.record_signature(lease, SUBMISSIONS[0]))
            self._make(replica, lambda store, _: store.defer(lease, RecordCode.CARD_API_BUSY, pause))

    @precondition(lambda self: self._holdings)
    @rule(data=st.data(), submission=st.sampled_from(SUBMISSIONS))
    def record_signature(self, data: st.DataObject, submission: Submission) -> None:
        """Record a signature, perhaps long after the lease ended."""
        self._use_a_lease(data, lambda store, lease: store.record_signature(lease, submission))

    @precondition(lambda self: self._holdings)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release, as if a key backend was down."""
        self._use_a_lease(data, lambda store, lease: store.release(lease, RecordCode.KEY_BACKEND_UNAVAILABLE))

    @precondition(lambda self: self._holdings)
    @rule(data=st.data(), pause=pauses)
    def defer(self, data: st.DataObject, pause: timedelta) -> None:
        """Defer, as if the card API was busy."""
        self._use_a_lease(data, lambda store, lease: store.defer(lease, RecordCode.CARD_API_BUSY, pause))

    @precondition(lambda self: self._holdings)
    @rule(data=st.data(), state=st.sampled_from(ENDS), code=st.none() | st.just(RecordCode.CARD_API_BUSY))
    def settle(self, data: st.DataObject, state: ChallengeState, code: RecordCode | None) -> None:
        """Settle, also with a state that is not final."""
        self._use_a_lease(data, lambda store, lease: store.settle(lease, state, code))

    @rule(replica=replicas, data=st.data())
    def begin_forwarding(self, replica: int, data: st.DataObject) -> None:
        """Begin forwarding, as recovery does."""
        self._make(replica, begin_forwarding(self._any_id(data)))

    @rule(replica=replicas, data=st.data())
    def expire(self, replica: int, data: st.DataObject) -> None:
        """Expire, as recovery does."""
        self._make(replica, expire(self._any_id(data)))

    @rule(replica=replicas, customer=customers, owner=owners)
    def find(self, replica: int, customer: str, owner: AccountId) -> None:
        """Find the newest record."""
        self._make(replica, lambda store, _: store.find(customer, owner))

    @precondition(lambda self: self._last is not None)
    @rule()
    def repeat(self) -> None:
        """Repeat the last call, as if its reply was lost."""
        assert self._last is not None
        self._both(*self._last)

    @rule(replica=replicas)
    def recover(self, replica: int) -> None:
        """Move everything that is due: nothing blocks the index."""
        for name in sorted(self._due(self._reals[replica])):
            if self._make(replica, begin_forwarding(name)) is None and self._make(replica, expire(name)) is None:
                assert self._has_nothing_to_move(name)

    def _has_nothing_to_move(self, name: str) -> bool:
        """Return whether a challenge that cannot be moved has no record and no index entry."""
        return self._record(name) is None and name not in self._due(self._reals[0])

    # --- invariants ---------------------------------------------------------------------------------------------------

    @invariant()
    def the_index_is_the_same(self) -> None:
        """The same ids are due in both, except for entries without a record, which are removed when they are met."""
        due = {name for name in self._due(self._reals[0]) if self._record(name) is not None}
        assert due == self._due(self._fakes[0])

    @invariant()
    def no_nonce_has_two_signatures_and_no_end_is_undone(self) -> None:
        """While a record is kept, its identity, signature and final state never change; token and attempts grow."""
        before, self._seen = self._seen, {}
        for name in self._ids():
            record = self._record(name)
            if record is None:
                continue
            self._seen[name] = record
            old = before.get(name, record)
            assert _identity(record) == _identity(old)
            assert (record.fencing_token, record.attempts, record.forward) >= (
                old.fencing_token,
                old.attempts,
                old.forward,
            )
            assert old.signature in {None, record.signature}
            assert (record.submission is None) or not record.state.is_final
            if old.state.is_final:
                assert (record.state, record.code, record.fencing_token) == (old.state, old.code, old.fencing_token)

    # --- calls on both stores -----------------------------------------------------------------------------------------

    def _current_token(self) -> str:
        return self._token

    def _record(self, name: str) -> ChallengeRecord | None:
        self._runner.run(self._fakes[0].get(name))  # a read record has expired in both or in neither
        return self._runner.run(self._reals[0].get(name))

    def _due(self, store: ChallengeStore) -> set[str]:
        names = self._runner.run(store.due(100))
        assert len(names) == len(set(names))
        return set(names)

    def _any_id(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self._ids()))

    def _use_a_lease(self, data: st.DataObject, move: Callable[[ChallengeStore, Lease], Awaitable[object]]) -> None:
        """Use one of the latest leases; some of them have been taken over since."""
        holding = data.draw(st.sampled_from(self._holdings[-LATEST_LEASES:][::-1]))
        record = self._record(holding.lease.id)
        result = self._make(holding.replica, lambda store, _: move(store, holding.lease))
        if record is None or record.fencing_token > holding.lease.fencing_token:
            assert result is LeaseLost

    def _make(self, replica: int, call: Call) -> object:
        """Make a call with a new token on both stores."""
        self._calls += 1
        self._token = f"replica-{replica}-call-{self._calls}"
        self._last = replica, call
        return self._both(replica, call)

    def _both(self, replica: int, call: Call) -> object:
        real = self._runner.run(_result_of(call(self._reals[replica], False)))
        fake = self._runner.run(_result_of(call(self._fakes[replica], True)))
        assert _comparable(real) == _comparable(fake)
        lease = real.lease if isinstance(real, (ClaimResult, LeasedRecord)) else None
        if lease is not None:
            holding = Holding(replica, replace(lease, remaining=timedelta(0)))
            if holding not in self._holdings:
                self._holdings.append(holding)
        return real


def begin_forwarding(challenge_id: str) -> Call:
    """Return the call that begins forwarding."""
    return lambda store, _: store.begin_forwarding(challenge_id)


def expire(challenge_id: str) -> Call:
    """Return the call that expires a challenge."""
    return lambda store, _: store.expire(challenge_id)


def settle(lease: Lease, state: ChallengeState, code: RecordCode | None = None) -> Call:
    """Return the call that settles a challenge."""
    return lambda store, _: store.settle(lease, state, code)


async def _result_of(call: Awaitable[object]) -> object:
    try:
        return await call
    except (LeaseLost, ForbiddenMove, Unavailable) as error:
        return type(error)


def _comparable(result: object) -> object:
    """Leave out instants, which differ by the time between two calls; only their presence is compared."""
    match result:
        case ClaimResult(outcome, record, lease):
            return outcome, _comparable(record), lease and lease.fencing_token
        case LeasedRecord(record, lease, deliverable):
            return _comparable(record), lease.fencing_token, lease.remaining > timedelta(0), deliverable
        case ChallengeRecord():
            return (
                *_identity(result),
                *(result.state, result.code, result.forward, result.submission, result.signature, result.superseded_by),
                *(result.attempts, result.first_attempt_at is None, result.fencing_token, result.leased_until is None),
            )
        case _:
            return result


def _identity(record: ChallengeRecord) -> tuple[object, ...]:
    return record.id, record.customer_id, record.owner, record.message_hash
