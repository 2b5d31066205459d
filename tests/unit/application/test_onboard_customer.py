"""Onboarding: a customer is created once, whatever is lost, and its id is in every answer from then on."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.onboard_customer import OnboardCustomer, OnboardingResult
from signer.domain.customer import CustomerIntent
from signer.domain.errors import Conflict, ErrorCode, NotFound, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from tests.support.fakes.customer_intents import FakeCustomerIntents
from tests.support.fakes.keys import FakeKeyRing
from tests.unit.application.use_cases import CUSTOMER, NO_TIME, PATIENCE, FakeSystem, Replica

ALICE = "alice"


class Wallet:
    """A wallet's backend that onboards Alice."""

    def __init__(self, system: FakeSystem, replica: Replica) -> None:
        self.intents = FakeCustomerIntents()
        self.system = system
        system.card_api.announced[ALICE] = CUSTOMER
        system.card_api.first_challenge = system.challenge()
        self.onboard = OnboardCustomer(
            intents=self.intents,
            card_api=system.card_api,
            keys=FakeKeyRing([system.key]),
            sign=replica.sign,
            audit=system.audit,
            admission=replica.admission,
            create_timeout=timedelta(seconds=8),
        )

    async def asks(self, *, within: timedelta = PATIENCE, owner: AccountId | None = None) -> OnboardingResult:
        """Ask for Alice."""
        return await self.onboard(CustomerIntent(self.system.owner, ALICE, owner or self.system.owner), within=within)


@pytest.fixture
def wallet(system: FakeSystem, replica: Replica) -> Wallet:
    """A wallet's backend, and a card API that knows nobody yet."""
    return Wallet(system, replica)


def down() -> Unavailable:
    """Make an outage of the store."""
    return Unavailable(ErrorCode.STORE_UNAVAILABLE, "down")


async def test_a_customer_is_created_and_its_challenge_verified(wallet: Wallet, system: FakeSystem) -> None:
    """Created, signed, delivered; each told once."""
    onboarded = await wallet.asks()
    assert onboarded.customer_id == CUSTOMER
    assert onboarded.error is None
    assert onboarded.record is not None
    assert onboarded.record.state is ChallengeState.VERIFIED
    assert next(event.name for event in system.audit.events) == "customer.created"


async def test_the_same_request_again_creates_nothing(wallet: Wallet, system: FakeSystem) -> None:
    """The id is known: nothing is POSTed, and the answer is the same."""
    assert await wallet.asks() == await wallet.asks()
    assert len(system.card_api.created) == 1


async def test_requests_at_once_share_one_creation(wallet: Wallet, system: FakeSystem) -> None:
    """Five callers, one POST."""
    answers = await asyncio.gather(*(wallet.asks() for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert len(system.card_api.created) == 1


async def test_an_owner_without_a_key_creates_nothing(wallet: Wallet, system: FakeSystem) -> None:
    """Refused before the store or the card API is asked."""
    stranger = AccountId.parse("eip155:324:0x22227A31dd842196A246d8f3b775998560eAa61d")
    with pytest.raises(NotFound) as refused:
        await wallet.asks(owner=stranger)
    assert refused.value.code is ErrorCode.OWNER_UNKNOWN
    assert (wallet.intents.known, system.card_api.created) == ({}, [])


async def test_without_a_stored_intent_nothing_is_sent(wallet: Wallet, system: FakeSystem) -> None:
    """The store is down before the POST: nothing leaves the system."""
    wallet.intents.failures.append(down())
    with pytest.raises(Unavailable):
        await wallet.asks()
    assert system.card_api.created == []


async def test_an_id_that_could_not_be_stored_is_got_again_under_the_same_key(
    wallet: Wallet, system: FakeSystem
) -> None:
    """The store goes down after the POST: the next request repeats it, and finds the same customer."""
    wallet.intents.failures.extend([None, down()])
    with pytest.raises(Unavailable):
        await wallet.asks()
    assert (await wallet.asks()).customer_id == CUSTOMER
    assert len(system.card_api.created) == 2
    assert len(set(system.card_api.created)) == 1


async def test_a_failure_after_the_creation_carries_the_id(
    wallet: Wallet, system: FakeSystem, replica: Replica
) -> None:
    """The key backend is down: no record, an error, and the customer's id; later the same request succeeds."""
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "down")
    onboarded = await wallet.asks()
    assert (onboarded.customer_id, onboarded.record) == (CUSTOMER, None)
    assert onboarded.error is system.key.failure
    system.key.failure = None
    again = await wallet.asks()
    assert again.record is not None
    assert again.record.state is ChallengeState.VERIFIED


async def test_a_customer_that_is_known_to_the_api_alone_is_a_conflict(wallet: Wallet, system: FakeSystem) -> None:
    """What the card API says rises unchanged."""
    system.card_api.failures.append(Conflict(ErrorCode.CUSTOMER_EXISTS, "there"))
    with pytest.raises(Conflict) as refused:
        await wallet.asks()
    assert refused.value.code is ErrorCode.CUSTOMER_EXISTS


async def test_a_caller_whose_time_is_over_leaves_the_creation_running(wallet: Wallet, system: FakeSystem) -> None:
    """He is told to ask again, and then finds the customer."""
    system.card_api.readable.clear()
    with pytest.raises(Unavailable) as refused:
        await wallet.asks(within=timedelta(milliseconds=5))
    assert refused.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    system.card_api.readable.set()
    assert (await wallet.asks()).customer_id == CUSTOMER
    assert len(system.card_api.created) == 1


async def test_a_cancelled_creation_tells_its_callers_to_ask_again(wallet: Wallet, system: FakeSystem) -> None:
    """Its task is cancelled, as at the end of the process; a caller is answered all the same."""
    system.card_api.readable.clear()
    caller = asyncio.create_task(wallet.asks())
    await system.until(lambda: bool(system.card_api.created))
    assert await wallet.onboard.drain(NO_TIME) == 1
    with pytest.raises(Unavailable):
        await caller


async def test_a_closed_gate_onboards_nobody(wallet: Wallet, system: FakeSystem, replica: Replica) -> None:
    """Starting or stopping: refused."""
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "stopping")
    with pytest.raises(Unavailable):
        await wallet.asks()
    assert system.card_api.created == []
