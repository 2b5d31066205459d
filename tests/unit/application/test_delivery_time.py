"""How long a POST may take, when none may begin, and how long the pauses between them are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signer.application.forward_signature import ForwardingLimits
from signer.application.ports import DeliveryVerdict
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord
from tests.support.fakes.clock import FakeClock
from tests.unit.application.use_cases import DEADLINE, LEASE, House

LIMITS = ForwardingLimits()
MILLISECONDS = st.integers(0, 20_000).map(lambda count: timedelta(milliseconds=count))
SPANS = st.timedeltas(timedelta(0), timedelta(days=2))
LOTS = st.floats(0, 1, exclude_max=True)


@given(
    attempts=st.integers(0, 10_000),
    asked=st.none() | SPANS,
    lot=LOTS,
    first=st.timedeltas(timedelta(0), timedelta(minutes=10)),
    longest=st.timedeltas(timedelta(0), timedelta(hours=1)),
)
@example(attempts=10_000, asked=None, lot=0.0, first=timedelta(minutes=10), longest=timedelta(hours=1))
def test_a_pause_is_within_its_bounds(
    attempts: int, asked: timedelta | None, lot: float, first: timedelta, longest: timedelta
) -> None:
    """What was asked for is the least; else it is between half of ours and all of it."""
    pause = ForwardingLimits(first_pause=first, longest_pause=longest).pause_after(attempts, asked, lambda: lot)
    shortest = min(first, longest) / 2
    assert max(shortest, asked or shortest) <= pause <= max(longest, asked or longest)


@given(attempts=st.integers(1, 100), lot=LOTS)
def test_pauses_grow_until_the_longest(attempts: int, lot: float) -> None:
    """By one and the same lot, no pause is shorter than the one before, nor longer than twice that one."""
    pause, following = (LIMITS.pause_after(number, None, lambda: lot) for number in (attempts, attempts + 1))
    assert pause <= following <= 2 * pause + timedelta(microseconds=2)


@pytest.mark.parametrize(
    ("attempts", "lot", "milliseconds"),
    [
        (1, 0.0, 125),
        (1, 1.0, 250),
        (2, 1.0, 500),
        (3, 1.0, 1000),
        (7, 1.0, 16_000),
        (8, 1.0, 30_000),
        (99, 0.0, 15_000),
    ],
)
def test_pauses_of_the_default_settings(attempts: int, lot: float, milliseconds: int) -> None:
    """A quarter of a second, doubled to half a minute, jittered down to half of it."""
    assert LIMITS.pause_after(attempts, None, lambda: lot) == timedelta(milliseconds=milliseconds)


async def attempted(house: House, lease: timedelta, left: timedelta, limits: ForwardingLimits) -> ChallengeRecord:
    """Attempt a delivery with so much left of the lease, and of the challenge by this replica's clock."""
    replica = house.replica(clock=FakeClock(DEADLINE - left), forwarding=limits)
    held = await house.signed(replica, house.issued())
    return await replica.forward.attempt(replace(held, lease=replace(held.lease, remaining=lease)))


@given(lease=MILLISECONDS, left=MILLISECONDS, margin=MILLISECONDS, longest=MILLISECONDS)
@example(lease=timedelta(seconds=2), left=timedelta(1), margin=timedelta(seconds=2), longest=timedelta(seconds=8))
@example(lease=LEASE, left=timedelta(0), margin=timedelta(seconds=2), longest=timedelta(seconds=8))
def test_a_post_ends_before_its_lease_and_its_challenge_do(
    lease: timedelta, left: timedelta, margin: timedelta, longest: timedelta
) -> None:
    """It has the time of the settings, of the lease without its margin, or of the challenge, whichever is least."""
    house = House()
    limits = ForwardingLimits(request_timeout=longest, lease_margin=margin)
    record = asyncio.run(attempted(house, lease, left, limits))
    time_for_it = min(longest, lease - margin, left)
    if time_for_it > timedelta(0):
        assert house.card_api.timeouts == [time_for_it]
        assert record.state is ChallengeState.VERIFIED
    else:
        assert not house.card_api.submitted
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)


async def test_a_replica_whose_clock_is_ahead_ends_nothing(house: House) -> None:
    """Given a replica for which the deadline is over, and no other, then it sends nothing, and another one delivers."""
    challenge = house.issued()
    ahead = house.replica(clock=FakeClock(DEADLINE + timedelta(minutes=1)))
    await house.signed(house.replica(), challenge)
    house.let_pass(LEASE)
    record = await ahead.forward.take_over(house.id_of(challenge))
    assert record is not None
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    assert (house.card_api.submitted, house.card_api.readings) == ([], 0)
    house.let_pass(timedelta(minutes=1))
    assert await house.replica().tick() == 1
    assert house.record(challenge).state is ChallengeState.VERIFIED


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), LOTS)
def test_nothing_is_posted_past_the_deadline_however_long_the_api_is_busy(steps: list[int], lot: float) -> None:
    """Given an API that is never done, then every POST ends within the challenge's time, and the record does end."""
    house = House()

    async def go_through() -> ChallengeRecord:
        challenge = house.issued()
        replica = house.replica(work_for=timedelta(0), jitter=lambda: lot)
        house.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.UNKNOWN)] * 1000)
        await replica.sign(house.request(challenge), within=LEASE)
        for step in [*steps, 3600, 60]:
            house.let_pass(timedelta(seconds=step))
            sent = len(house.card_api.submitted)
            await replica.tick()
            for timeout in house.card_api.timeouts[sent:]:
                assert house.clock.now() + timeout <= DEADLINE
        return house.record(challenge)

    record = asyncio.run(go_through())
    assert (record.state, record.code) == (ChallengeState.EXPIRED, RecordCode.NOT_DELIVERED)
    assert record.attempts == len(house.card_api.submitted)
    assert len(set(house.card_api.submitted)) == 1


@pytest.mark.parametrize("is_deliverable", [True, False], ids=["without a body", "past its time"])
async def test_a_hold_that_is_not_for_sending_is_for_asking(house: House, is_deliverable: bool) -> None:
    """Given nothing that may be sent, then what became of the challenge is asked; that may be too early."""
    replica = house.replica()
    held = await house.signed(replica, house.issued())
    if is_deliverable:
        held = replace(held, record=replace(held.record, submission=None))
    record = await replica.forward.attempt(replace(held, deliverable=is_deliverable))
    assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)
    assert (house.card_api.submitted, house.card_api.readings) == ([], 1)


@pytest.mark.parametrize("stalled_for", [timedelta(0), timedelta(seconds=10), LEASE - LIMITS.lease_margin])
async def test_a_stall_between_the_lease_and_the_post_is_part_of_the_lease(
    house: House, stalled_for: timedelta
) -> None:
    """Given a process that slept with a lease in its hands, then it POSTs for what is left of it, or not at all."""
    replica = house.replica()
    held = await house.signed(replica, house.issued())
    house.let_pass(stalled_for)
    record = await replica.forward.attempt(held)
    left = LEASE - stalled_for - LIMITS.lease_margin
    if left > timedelta(0):
        assert house.card_api.timeouts == [min(left, LIMITS.request_timeout)]
        assert record.state is ChallengeState.VERIFIED
    else:
        assert not house.card_api.submitted
        assert (record.state, record.code) == (ChallengeState.SIGNED, RecordCode.OUTCOME_UNKNOWN)


@pytest.mark.parametrize("verdict", [DeliveryVerdict.CONFLICT_AMBIGUOUS, DeliveryVerdict.REFUSED])
async def test_a_question_ends_with_the_lease(house: House, verdict: DeliveryVerdict) -> None:
    """Given a POST that took nearly all of the lease, then nothing more is asked under it: the next holder asks."""
    replica = house.replica()
    held = await house.signed(replica, house.issued())
    house.card_api.verdicts.append(DeliveryResult(verdict, 409))
    house.card_api.open.clear()
    posting = asyncio.create_task(replica.forward.attempt(held))
    await house.until(lambda: bool(house.card_api.submitted))
    house.let_pass(LEASE - LIMITS.lease_margin)
    house.card_api.open.set()
    assert (await posting).state is ChallengeState.SIGNED
    assert house.card_api.readings == 0
