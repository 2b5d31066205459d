"""How long a POST may take, when none may begin, and how long the pauses between them are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signer.application.forward_signature import ForwardingLimits
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.support.fakes.clock import FakeClock
from tests.unit.application.use_cases import DEADLINE, LEASE, FakeSystem, forwarding_limits

MILLISECONDS = st.integers(0, 20_000).map(lambda count: timedelta(milliseconds=count))
LOTS = st.floats(0, 1, exclude_max=True)


LEASE_MARGIN = timedelta(seconds=2)


async def attempted(system: FakeSystem, lease: timedelta, left: timedelta, limits: ForwardingLimits) -> ChallengeRecord:
    """Attempt a delivery with so much left of the lease, and of the challenge by this replica's clock."""
    replica = system.replica(clock=FakeClock(DEADLINE - left), forwarding=limits)
    held = await system.signed(replica, system.issued())
    return await replica.forward.attempt(replace(held, lease=replace(held.lease, remaining=lease)))


@given(lease=MILLISECONDS, left=MILLISECONDS, longest=MILLISECONDS)
@example(lease=timedelta(seconds=2), left=timedelta(1), longest=timedelta(seconds=8))
@example(lease=LEASE, left=timedelta(0), longest=timedelta(seconds=8))
def test_a_post_ends_before_its_lease_and_its_challenge_do(
    lease: timedelta, left: timedelta, longest: timedelta
) -> None:
    """It has the time of the settings, of the lease without its margin, or of the challenge, whichever is least."""
    system = FakeSystem()
    limits = forwarding_limits(request_timeout=longest)
    record = asyncio.run(attempted(system, lease, left, limits))
    time_for_it = min(longest, lease - LEASE_MARGIN, left)
    if time_for_it > timedelta(0):
        assert system.card_api.timeouts == [time_for_it]
        assert record.state is ChallengeState.VERIFIED
    else:
        assert not system.card_api.submitted
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)


async def test_a_replica_whose_clock_is_ahead_ends_nothing(system: FakeSystem) -> None:
    """Given a replica for which the deadline is over, and no other, then it sends nothing, and another one delivers."""
    challenge = system.issued()
    ahead = system.replica(clock=FakeClock(DEADLINE + timedelta(minutes=1)))
    await system.signed(system.replica(), challenge)
    system.let_pass(LEASE)
    record = await ahead.forward.take_over(system.id_of(challenge))
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    assert (system.card_api.submitted, system.card_api.readings) == ([], 0)
    system.let_pass(timedelta(minutes=1))
    assert await system.replica().tick() == 1
    assert system.record(challenge).state is ChallengeState.VERIFIED


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), LOTS)
def test_nothing_is_posted_past_the_deadline_however_long_the_api_is_busy(steps: list[int], lot: float) -> None:
    """Given an API that is never done, then every POST ends within the challenge's time, and the record does end."""
    system = FakeSystem()

    async def go_through() -> ChallengeRecord:
        challenge = system.issued()
        replica = system.replica(work_timeout=timedelta(0), jitter=lambda: lot)
        system.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN)] * 1000)
        await replica.sign(system.request(challenge), within=LEASE)
        for step in [*steps, 3600, 60]:
            system.let_pass(timedelta(seconds=step))
            sent = len(system.card_api.submitted)
            await replica.tick()
            for timeout in system.card_api.timeouts[sent:]:
                assert system.clock.now() + timeout <= DEADLINE
        return system.record(challenge)

    record = asyncio.run(go_through())
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert record.attempts == len(system.card_api.submitted)
    assert len(set(system.card_api.submitted)) == 1


@pytest.mark.parametrize("is_deliverable", [True, False], ids=["without a body", "past its time"])
async def test_a_hold_that_is_not_for_sending_is_for_asking(system: FakeSystem, is_deliverable: bool) -> None:
    """Given nothing that may be sent, then what became of the challenge is asked; that may be too early."""
    replica = system.replica()
    held = await system.signed(replica, system.issued())
    if is_deliverable:
        held = replace(held, record=replace(held.record, submission=None))
    record = await replica.forward.attempt(replace(held, deliverable=is_deliverable))
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    assert (system.card_api.submitted, system.card_api.readings) == ([], 1)


@pytest.mark.parametrize("stalled_for", [timedelta(0), timedelta(seconds=10), LEASE - LEASE_MARGIN])
async def test_a_stall_between_the_lease_and_the_post_is_part_of_the_lease(
    system: FakeSystem, stalled_for: timedelta
) -> None:
    """Given a process that slept with a lease in its hands, then it POSTs for what is left of it, or not at all."""
    replica = system.replica()
    held = await system.signed(replica, system.issued())
    system.let_pass(stalled_for)
    record = await replica.forward.attempt(held)
    left = LEASE - stalled_for - LEASE_MARGIN
    if left > timedelta(0):
        assert system.card_api.timeouts == [min(left, forwarding_limits().request_timeout)]
        assert record.state is ChallengeState.VERIFIED
    else:
        assert not system.card_api.submitted
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)


@pytest.mark.parametrize("verdict", [DeliveryVerdict.CONFLICT_AMBIGUOUS, DeliveryVerdict.REFUSED])
async def test_a_question_ends_with_the_lease(system: FakeSystem, verdict: DeliveryVerdict) -> None:
    """Given a POST that took nearly all of the lease, then nothing more is asked under it: the next holder asks."""
    replica = system.replica()
    held = await system.signed(replica, system.issued())
    system.card_api.verdicts.append(DeliveryResult(verdict, 409))
    system.card_api.open.clear()
    posting = asyncio.create_task(replica.forward.attempt(held))
    await system.until(lambda: bool(system.card_api.submitted))
    system.let_pass(LEASE - LEASE_MARGIN)
    system.card_api.open.set()
    assert (await posting).state is ChallengeState.SIGNED
    assert system.card_api.readings == 0
