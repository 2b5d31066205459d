"""Tests: time limits of a delivery, and when none may start."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.application.settle_or_defer import ForwardingLimits
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.support.fakes.clock import FakeClock
from tests.unit.application.fake_system import DEADLINE, LEASE, FakeSystem, forwarding_limits

MILLISECONDS = st.integers(0, 20_000).map(lambda count: timedelta(milliseconds=count))
JITTER = st.floats(0, 1, exclude_max=True)
LEASE_MARGIN = timedelta(seconds=2)


async def attempt_with(
    system: FakeSystem, lease: timedelta, time_left: timedelta, limits: ForwardingLimits
) -> ChallengeRecord:
    """Attempt a delivery with this time left of the lease, and of the challenge by this replica's clock."""
    replica = system.add_replica(clock=FakeClock(DEADLINE - time_left), forwarding=limits)
    leased = await system.sign_and_record(replica, system.issue_challenge())
    return await replica.forward.attempt(replace(leased, lease=replace(leased.lease, remaining=lease)))


@given(lease=MILLISECONDS, time_left=MILLISECONDS, setting=MILLISECONDS)
@example(lease=timedelta(seconds=2), time_left=timedelta(1), setting=timedelta(seconds=8))
@example(lease=LEASE, time_left=timedelta(0), setting=timedelta(seconds=8))
def test_post_timeout_is_the_least_of_setting_lease_and_challenge_time(
    lease: timedelta, time_left: timedelta, setting: timedelta
) -> None:
    """The lease counts without its margin. Nothing is sent if no time is left."""
    system = FakeSystem()
    limits = forwarding_limits(request_timeout=setting)
    record = asyncio.run(attempt_with(system, lease, time_left, limits))
    expected = min(setting, lease - LEASE_MARGIN, time_left)
    if expected > timedelta(0):
        assert system.card_api.timeouts == [expected]
        assert record.state is ChallengeState.VERIFIED
    else:
        assert not system.card_api.submitted
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.NO_TIME_LEFT)


async def test_replica_whose_clock_is_ahead_defers_instead_of_expiring(system: FakeSystem) -> None:
    """The deadline has passed by its own clock only: it sends nothing, and another replica delivers."""
    challenge = system.issue_challenge()
    ahead = system.add_replica(clock=FakeClock(DEADLINE + timedelta(minutes=1)))
    await system.sign_and_record(system.add_replica(), challenge)
    system.advance(LEASE)
    record = await ahead.forward.take_over(system.id_of(challenge))
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.NO_TIME_LEFT)
    assert (system.card_api.submitted, system.card_api.read_count) == ([], 0)
    system.advance(timedelta(minutes=1))
    assert await system.add_replica().run_round() == 1
    assert system.record_of(challenge).state is ChallengeState.VERIFIED


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), JITTER)
def test_no_post_outlasts_the_deadline_while_card_api_fails(steps: list[int], jitter: float) -> None:
    """Each delivery has an unknown result until the record expires."""
    system = FakeSystem()

    async def run() -> ChallengeRecord:
        challenge = system.issue_challenge()
        replica = system.add_replica(work_timeout=timedelta(0), jitter=lambda: jitter)
        system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN)] * 1000)
        await replica.sign(system.request(challenge), within=LEASE)
        for step in [*steps, 3600, 60]:
            system.advance(timedelta(seconds=step))
            sent = len(system.card_api.submitted)
            await replica.run_round()
            for timeout in system.card_api.timeouts[sent:]:
                assert system.clock.now() + timeout <= DEADLINE
        return system.record_of(challenge)

    record = asyncio.run(run())
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert record.attempts == len(system.card_api.submitted)
    assert len(set(system.card_api.submitted)) == 1


@pytest.mark.parametrize("is_deliverable", [True, False], ids=["without_body", "after_deadline"])
async def test_undeliverable_record_reads_customer_status(system: FakeSystem, is_deliverable: bool) -> None:
    """Nothing is sent; the grace period has not passed, so the record is deferred."""
    replica = system.add_replica()
    leased = await system.sign_and_record(replica, system.issue_challenge())
    if is_deliverable:
        leased = replace(leased, record=leased.record._replace(submission=None))
    record = await replica.forward.attempt(replace(leased, deliverable=is_deliverable))
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    assert (system.card_api.submitted, system.card_api.read_count) == ([], 1)


@pytest.mark.parametrize("stalled_for", [timedelta(0), timedelta(seconds=10), LEASE - LEASE_MARGIN])
async def test_stall_between_lease_and_post_shortens_the_post(system: FakeSystem, stalled_for: timedelta) -> None:
    """If the stall used up the lease, nothing is sent."""
    replica = system.add_replica()
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.advance(stalled_for)
    record = await replica.forward.attempt(leased)
    time_left = LEASE - stalled_for - LEASE_MARGIN
    if time_left > timedelta(0):
        assert system.card_api.timeouts == [min(time_left, forwarding_limits().request_timeout)]
        assert record.state is ChallengeState.VERIFIED
    else:
        assert not system.card_api.submitted
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.NO_TIME_LEFT)


@pytest.mark.parametrize("verdict", [DeliveryVerdict.CONFLICT_AMBIGUOUS, DeliveryVerdict.REFUSED])
async def test_no_read_starts_after_a_post_that_used_up_the_lease(system: FakeSystem, verdict: DeliveryVerdict) -> None:
    """The next lease holder reads instead."""
    replica = system.add_replica()
    leased = await system.sign_and_record(replica, system.issue_challenge())
    system.card_api.verdicts.append(DeliveryResult(verdict, 409))
    system.card_api.open.clear()
    posting = asyncio.create_task(replica.forward.attempt(leased))
    await system.wait_until(lambda: bool(system.card_api.submitted))
    system.advance(LEASE - LEASE_MARGIN)
    system.card_api.open.set()
    assert (await posting).state is ChallengeState.SIGNED
    assert system.card_api.read_count == 0
