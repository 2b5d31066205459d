"""The scripts against the model: time passes by setting every stored instant back."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from signer.application.ports import ChallengeStore, Claim
from tests.support.challenge_store_machine import Call, ChallengeStoreMachine
from tests.support.challenge_stores import LEASE, RETENTION, VALID_FOR
from tests.support.servers import valkey

SPANS = (timedelta(seconds=5), LEASE / 2, LEASE, VALID_FOR, timedelta(hours=1), RETENTION)


class Stores(ChallengeStoreMachine):
    """Time only passes."""

    @rule(by=st.sampled_from(SPANS))
    def wait(self, by: timedelta) -> None:
        """Time passes."""
        self._shelf.advance(by)
        self._runner.run(self._source.advance(by))

    def _now(self) -> datetime:
        return datetime.now(UTC)

    def _claim(self, claim: Claim) -> Call:
        """The real store's clock stays, so the fake's claims are as far ahead as its clock."""

        def call(store: ChallengeStore, is_fake: bool) -> Awaitable[object]:
            ahead = self._shelf.ahead if is_fake else timedelta(0)
            return store.claim(replace(claim, issued_at=claim.issued_at + ahead, expires_at=claim.expires_at + ahead))

        return call


@pytest.fixture(scope="module")
def machine() -> Iterator[type[Stores]]:
    """One Valkey for all sequences; each has its own key prefix."""
    with valkey() as server:
        Stores.server = server
        yield Stores


def test_scripts_behave_like_the_model(machine: type[Stores]) -> None:
    """Any sequence of calls on the real store has the results of the fake, and the guarantees hold."""
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=30))
