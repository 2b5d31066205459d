"""Tests: nothing is signed while the audit log cannot be written, and what is signed is delivered."""

from __future__ import annotations

import pytest

from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState
from tests.unit.application.fake_system import LEASE, LONG_TIMEOUT, FakeSystem, Replica
from tests.unit.application.test_rejected_requests import check_nothing_was_spent


@pytest.mark.parametrize("has_challenge", [True, False])
async def test_unwritable_audit_log_stops_signing_before_the_claim(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """The same request signs when the log can be written again."""
    challenge = system.issue_challenge()
    request = system.request(challenge if has_challenge else None)
    system.audit.is_down = True
    with pytest.raises(Unavailable) as error:
        await replica.sign(request, within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.AUDIT_UNAVAILABLE
    check_nothing_was_spent(system, replica)
    system.audit.is_down = False
    assert (await replica.sign(request, within=LONG_TIMEOUT)).state is ChallengeState.VERIFIED


@pytest.mark.parametrize("has_challenge", [True, False])
async def test_unwritable_audit_log_stops_no_delivery(
    system: FakeSystem, replica: Replica, has_challenge: bool
) -> None:
    """A caller who repeats the request gets the verified record."""
    challenge = system.issue_challenge()
    await system.sign_and_record(replica, challenge)
    system.audit.is_down = True
    system.advance(2 * LEASE)
    record = await replica.sign(system.request(challenge if has_challenge else None), within=LONG_TIMEOUT)
    assert record.state is ChallengeState.VERIFIED


async def test_recovery_delivers_while_the_audit_log_cannot_be_written(system: FakeSystem, replica: Replica) -> None:
    """The signature exists already."""
    challenge = system.issue_challenge()
    await system.sign_and_record(replica, challenge)
    system.audit.is_down = True
    system.advance(2 * LEASE)
    assert await replica.run_round() == 1
    assert system.has_state(challenge, ChallengeState.VERIFIED)
