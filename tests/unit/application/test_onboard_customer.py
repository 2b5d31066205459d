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
from tests.unit.application.use_cases import CUSTOMER, NO_TIME, PATIENCE, House, Replica

ALICE = "alice"


class Wallet:
    """A wallet's backend that onboards Alice."""

    def __init__(self, house: House, replica: Replica) -> None:
        self.intents = FakeCustomerIntents()
        self.house = house
        house.card_api.announced[ALICE] = CUSTOMER
        house.card_api.first_challenge = house.challenge()
        self.onboard = OnboardCustomer(
            intents=self.intents,
            card_api=house.card_api,
            keys=FakeKeyRing([house.key]),
            sign=replica.sign,
            audit=house.audit,
            admission=replica.admission,
        )

    async def asks(self, *, within: timedelta = PATIENCE, owner: AccountId | None = None) -> OnboardingResult:
        """Ask for Alice."""
        return await self.onboard(CustomerIntent(self.house.owner, ALICE, owner or self.house.owner), within=within)


@pytest.fixture
def wallet(house: House, replica: Replica) -> Wallet:
    """A wallet's backend, and a card API that knows nobody yet."""
    return Wallet(house, replica)


def down() -> Unavailable:
    """Make an outage of the store."""
    return Unavailable(ErrorCode.STORE_UNAVAILABLE, "down")


async def test_a_customer_is_created_and_its_challenge_verified(wallet: Wallet, house: House) -> None:
    """Created, signed, delivered; each told once."""
    onboarded = await wallet.asks()
    assert onboarded.customer_id == CUSTOMER
    assert onboarded.error is None
    assert onboarded.record is not None
    assert onboarded.record.state is ChallengeState.VERIFIED
    assert next(event.name for event in house.audit.events) == "customer.created"


async def test_the_same_request_again_creates_nothing(wallet: Wallet, house: House) -> None:
    """The id is known: nothing is POSTed, and the answer is the same."""
    assert await wallet.asks() == await wallet.asks()
    assert len(house.card_api.created) == 1


async def test_requests_at_once_share_one_creation(wallet: Wallet, house: House) -> None:
    """Five callers, one POST."""
    answers = await asyncio.gather(*(wallet.asks() for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert len(house.card_api.created) == 1


async def test_an_owner_without_a_key_creates_nothing(wallet: Wallet, house: House) -> None:
    """Refused before the store or the card API is asked."""
    stranger = AccountId.parse("eip155:324:0x22227A31dd842196A246d8f3b775998560eAa61d")
    with pytest.raises(NotFound) as refused:
        await wallet.asks(owner=stranger)
    assert refused.value.code is ErrorCode.OWNER_UNKNOWN
    assert (wallet.intents.known, house.card_api.created) == ({}, [])


async def test_without_a_stored_intent_nothing_is_sent(wallet: Wallet, house: House) -> None:
    """The store is down before the POST: nothing leaves the house."""
    wallet.intents.failures.append(down())
    with pytest.raises(Unavailable):
        await wallet.asks()
    assert house.card_api.created == []


async def test_an_id_that_could_not_be_stored_is_got_again_under_the_same_key(wallet: Wallet, house: House) -> None:
    """The store goes down after the POST: the next request repeats it, and finds the same customer."""
    wallet.intents.failures.extend([None, down()])
    with pytest.raises(Unavailable):
        await wallet.asks()
    assert (await wallet.asks()).customer_id == CUSTOMER
    assert len(house.card_api.created) == 2
    assert len(set(house.card_api.created)) == 1


async def test_a_failure_after_the_creation_carries_the_id(wallet: Wallet, house: House, replica: Replica) -> None:
    """The key backend is down: no record, an error, and the customer's id; later the same request succeeds."""
    house.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "down")
    onboarded = await wallet.asks()
    assert (onboarded.customer_id, onboarded.record) == (CUSTOMER, None)
    assert onboarded.error is house.key.failure
    house.key.failure = None
    again = await wallet.asks()
    assert again.record is not None
    assert again.record.state is ChallengeState.VERIFIED


async def test_a_customer_that_is_known_to_the_api_alone_is_a_conflict(wallet: Wallet, house: House) -> None:
    """What the card API says rises unchanged."""
    house.card_api.failures.append(Conflict(ErrorCode.CUSTOMER_EXISTS, "there"))
    with pytest.raises(Conflict) as refused:
        await wallet.asks()
    assert refused.value.code is ErrorCode.CUSTOMER_EXISTS


async def test_a_caller_whose_time_is_over_leaves_the_creation_running(wallet: Wallet, house: House) -> None:
    """He is told to ask again, and then finds the customer."""
    house.card_api.readable.clear()
    with pytest.raises(Unavailable) as refused:
        await wallet.asks(within=timedelta(milliseconds=5))
    assert refused.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    house.card_api.readable.set()
    assert (await wallet.asks()).customer_id == CUSTOMER
    assert len(house.card_api.created) == 1


async def test_a_cancelled_creation_tells_its_callers_to_ask_again(wallet: Wallet, house: House) -> None:
    """Its task is cancelled, as at the end of the process; a caller is answered all the same."""
    house.card_api.readable.clear()
    caller = asyncio.create_task(wallet.asks())
    await house.until(lambda: bool(house.card_api.created))
    assert await wallet.onboard.drain(NO_TIME) == 1
    with pytest.raises(Unavailable):
        await caller


async def test_a_closed_gate_onboards_nobody(wallet: Wallet, house: House, replica: Replica) -> None:
    """Starting or stopping: refused."""
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "stopping")
    with pytest.raises(Unavailable):
        await wallet.asks()
    assert house.card_api.created == []
