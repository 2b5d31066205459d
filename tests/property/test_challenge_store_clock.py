"""The scripts against the model while Redis's own clock is set, ahead and back, by seconds or by a year.

A real Valkey under libfaketime: no stored instant is changed, only the clock. Besides what holds on any clock
(``tests/support/challenge_store_machine.py``):

* One signature for each nonce, also if Redis forgot the record because the clock was set ahead. The exception is a
  clock that is set past the retention and back before the challenge expires.
* Every challenge becomes final. When every replica is dead, whatever the clock did before: deliveries are taken over
  within twice ``longest_wait``, and the other challenges expire within the same time after their deadline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from signer.adapters.redis_store.challenge_store import longest_wait
from signer.application.ports import Claim, ClaimResult, LeasedRecord
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from tests.support.challenge_store_machine import (
    OTHER_CUSTOMER,
    OWNERS,
    SUBMISSIONS,
    Call,
    ChallengeStoreMachine,
    begin_forwarding,
    expire,
    owners,
    replicas,
    settle,
)
from tests.support.challenge_stores import CUSTOMER, LEASE, MAX_AGE, RETENTION, SETTINGS, VALID_FOR, claim_of
from tests.support.jumping_clock import JumpingClock, valkey_with_clock

A_SECOND = timedelta(seconds=1)
JUMPS = (A_SECOND, LEASE / 2, LEASE, VALID_FOR, timedelta(hours=1), RETENTION + A_SECOND, timedelta(days=365))
STEPS = 50
PARTS_OF_ALL_EXAMPLES = 5
"""A step here is slower than one on a plain server, and there are more of them in a sequence."""


class Clocks(ChallengeStoreMachine):
    """The clock jumps. Each owner has one challenge after the other, issued by that clock."""

    clock: ClassVar[JumpingClock]

    def __init__(self) -> None:
        super().__init__()
        self.clock.set(timedelta(0))
        self._nonces = {owner: [f"nonce-0-of-{owner.address}"] for owner in OWNERS}
        self._lives: dict[str, tuple[datetime, datetime]] = {}
        self._signatures: dict[str, tuple[str, str]] = {}

    def teardown(self) -> None:
        """Check that every challenge becomes final."""
        try:
            self._end()
        finally:
            super().teardown()

    @rule(by=st.sampled_from(JUMPS), sign=st.sampled_from((1, -1)))
    def jump(self, by: timedelta, sign: int) -> None:
        """Set the clock."""
        self._set_clock(self.clock.ahead + sign * by)

    @rule(
        replica=replicas, owner=owners, by=st.sampled_from(JUMPS), sign=st.sampled_from((1, -1)), issued=st.booleans()
    )
    def sign_by_a_wrong_clock(self, replica: int, owner: AccountId, by: timedelta, sign: int, *, issued: bool) -> None:
        """Sign while the clock is wrong, from before or after the challenge is issued; then correct the clock."""
        self.issue_another(owner)
        claim, right = claim_of(self._nonce(owner), owner=owner), self.clock.ahead
        if issued:
            self._claim(claim)
        self._set_clock(right + sign * by)
        result = self._make(replica, self._claim(claim))
        if isinstance(result, ClaimResult) and (lease := result.lease):
            self._make(replica, lambda store, _: store.record_signature(lease, SUBMISSIONS[0]))
        self._set_clock(right)

    @rule(replica=replicas, owner=owners, message=st.sampled_from("ab"))
    def outlast_the_retention(self, replica: int, owner: AccountId, message: str) -> None:
        """Set the clock ahead until Redis forgets the record, and claim the old nonce."""
        self._set_clock(self.clock.ahead + RETENTION + A_SECOND)
        result = self._make(replica, self._claim(claim_of(self._nonce(owner), message=message * 64, owner=owner)))
        if isinstance(result, ClaimResult) and (lease := result.lease):
            self._make(replica, lambda store, _: store.record_signature(lease, SUBMISSIONS[1]))

    @rule()
    def correct_clock(self) -> None:
        """Set the clock right."""
        self._set_clock(timedelta(0))

    @rule(owner=owners)
    def issue_another(self, owner: AccountId) -> None:
        """Let the card API issue the owner's next challenge."""
        self._nonces[owner].append(f"nonce-{len(self._nonces[owner])}-of-{owner.address}")

    @invariant()
    def no_nonce_has_two_signatures_ever(self) -> None:
        """For any message, whether its record is kept or forgotten."""
        for name, record in self._seen.items():
            if record.signature is not None:
                known = self._signatures.setdefault(name, (record.message_hash, record.signature))
                assert known == (record.message_hash, record.signature)

    def _set_clock(self, ahead: timedelta) -> None:
        """Set the clock, after deleting expired records in both stores: Redis deletes unread ones at any time."""
        forgotten = {name for name in self._ids() if self._record(name) is None}
        for owner in OWNERS:
            for customer in (CUSTOMER, OTHER_CUSTOMER):
                self._runner.run(self._reals[0].find(customer, owner))
        self.clock.set(ahead)
        for name in forgotten & self._signatures.keys():
            if self.clock.now() < self._lives[name][1]:  # set ahead and back: it may be claimed again
                del self._signatures[name]

    def _has_nothing_to_move(self, name: str) -> bool:
        """A challenge that the clock misplaced in the index may have time left."""
        record = self._record(name)
        is_early = record is not None and record.expires_at > self.clock.now()
        return is_early or super()._has_nothing_to_move(name)

    def _now(self) -> datetime:
        return self.clock.now()

    def _nonce(self, owner: AccountId) -> str:
        return self._nonces[owner][-1]

    def _ids(self) -> list[str]:
        return [claim_of(nonce, owner=owner).id for owner in OWNERS for nonce in self._nonces[owner]]

    def _claim(self, claim: Claim) -> Call:
        """The instants of a message never change; it is issued when it is first claimed."""
        life = claim.expires_at - claim.issued_at
        issued_at, expires_at = self._lives.setdefault(claim.id, (self.clock.now(), self.clock.now() + life))
        dated = replace(claim, issued_at=issued_at, expires_at=expires_at)
        return lambda store, _: store.claim(dated)

    def _end(self) -> None:
        """Let other replicas recover everything."""
        self._recover_within_the_bound()
        unsettled = [record for name in self._ids() if (record := self._record(name)) and not record.state.is_final]
        assert not any(record.attempts for record in unsettled)
        latest = max((record.expires_at for record in unsettled), default=self.clock.now())
        self._set_clock(self.clock.ahead + max(latest - self.clock.now() + A_SECOND, timedelta(0)))
        self._recover_within_the_bound()
        for name in self._ids():
            record = self._record(name)
            assert record is None or record.state.is_final
        assert not self._due(self._fakes[0])

    def _recover_within_the_bound(self) -> None:
        for _ in range(2):
            self._recover_all()
            self._set_clock(self.clock.ahead + longest_wait(SETTINGS, MAX_AGE))
        self._recover_all()

    def _recover_all(self) -> None:
        for name in sorted(self._due(self._reals[0])):
            held = self._make(0, begin_forwarding(name))
            if isinstance(held, LeasedRecord):
                self._make(0, settle(held.lease, ChallengeState.VERIFIED))
            elif self._make(0, expire(name)) is None:
                assert self._has_nothing_to_move(name)


@pytest.fixture(scope="module")
def machine() -> Iterator[type[Clocks]]:
    """One Valkey for all sequences; each has its own key prefix."""
    with valkey_with_clock() as (server, clock):
        Clocks.server, Clocks.clock = server, clock
        yield Clocks


@pytest.mark.needs("faketime")
def test_scripts_behave_like_the_model_on_any_clock(machine: type[Clocks]) -> None:
    """A thousand steps; with the profile ``heavy`` fifty thousand."""
    examples = settings().max_examples // PARTS_OF_ALL_EXAMPLES
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=STEPS))
