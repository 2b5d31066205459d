"""Tests: a customer is created once, whatever call or reply is lost, and every later response contains its id."""

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
from tests.unit.application.fake_system import CUSTOMER, LONG_TIMEOUT, ZERO_TIMEOUT, FakeSystem, Replica

ALICE = "alice"


class WalletBackend:
    """A wallet backend that onboards Alice."""

    def __init__(self, system: FakeSystem, replica: Replica) -> None:
        self.intents = FakeCustomerIntents()
        self.system = system
        system.card_api.customer_ids[ALICE] = CUSTOMER
        system.card_api.first_challenge = system.make_challenge()
        self.onboard = OnboardCustomer(
            intents=self.intents,
            card_api=system.card_api,
            keys=FakeKeyRing([system.key]),
            sign=replica.sign,
            audit=system.audit,
            admission=replica.admission,
            create_timeout=timedelta(seconds=8),
        )

    async def onboard_alice(
        self, *, within: timedelta = LONG_TIMEOUT, owner: AccountId | None = None
    ) -> OnboardingResult:
        """Onboard Alice."""
        return await self.onboard(CustomerIntent(self.system.owner, ALICE, owner or self.system.owner), within=within)


@pytest.fixture
def wallet(system: FakeSystem, replica: Replica) -> WalletBackend:
    """A wallet backend, and a card API without customers."""
    return WalletBackend(system, replica)


def store_unavailable() -> Unavailable:
    """Create the error of a store that is down."""
    return Unavailable(ErrorCode.STORE_UNAVAILABLE, "down")


async def test_customer_is_created_and_its_challenge_verified(wallet: WalletBackend, system: FakeSystem) -> None:
    """The creation is the first event of the audit log."""
    onboarded = await wallet.onboard_alice()
    assert onboarded.customer_id == CUSTOMER
    assert onboarded.error is None
    assert onboarded.record is not None
    assert onboarded.record.state is ChallengeState.VERIFIED
    assert next(event.name for event in system.audit.events) == "customer.created"


async def test_same_request_again_creates_no_second_customer(wallet: WalletBackend, system: FakeSystem) -> None:
    """It returns the same result."""
    assert await wallet.onboard_alice() == await wallet.onboard_alice()
    assert len(system.card_api.created) == 1


async def test_concurrent_equal_requests_share_one_creation(wallet: WalletBackend, system: FakeSystem) -> None:
    """Five callers, one POST."""
    results = await asyncio.gather(*(wallet.onboard_alice() for _ in range(5)))
    assert all(result == results[0] for result in results)
    assert len(system.card_api.created) == 1


async def test_owner_without_key_creates_no_customer(wallet: WalletBackend, system: FakeSystem) -> None:
    """Neither the store nor the card API is called."""
    unknown_owner = AccountId.parse("eip155:324:0x22227A31dd842196A246d8f3b775998560eAa61d")
    with pytest.raises(NotFound) as error:
        await wallet.onboard_alice(owner=unknown_owner)
    assert error.value.code is ErrorCode.OWNER_UNKNOWN
    assert (wallet.intents.known, system.card_api.created) == ({}, [])


async def test_no_customer_is_created_while_the_audit_log_cannot_be_written(
    wallet: WalletBackend, system: FakeSystem
) -> None:
    """The same request creates it when the log can be written again."""
    system.audit.is_down = True
    with pytest.raises(Unavailable) as error:
        await wallet.onboard_alice()
    assert error.value.code is ErrorCode.AUDIT_UNAVAILABLE
    assert system.card_api.created == []
    system.audit.is_down = False
    assert (await wallet.onboard_alice()).error is None


async def test_nothing_is_sent_if_intent_cannot_be_stored(wallet: WalletBackend, system: FakeSystem) -> None:
    """The store is down before the POST."""
    wallet.intents.failures.append(store_unavailable())
    with pytest.raises(Unavailable):
        await wallet.onboard_alice()
    assert system.card_api.created == []


async def test_creation_is_repeated_under_same_key_if_its_id_could_not_be_stored(
    wallet: WalletBackend, system: FakeSystem
) -> None:
    """The store goes down after the POST; the next request finds the same customer."""
    wallet.intents.failures.extend([None, store_unavailable()])
    with pytest.raises(Unavailable):
        await wallet.onboard_alice()
    assert (await wallet.onboard_alice()).customer_id == CUSTOMER
    assert len(system.card_api.created) == 2
    assert len(set(system.card_api.created)) == 1


async def test_failure_after_creation_contains_customer_id(
    wallet: WalletBackend, system: FakeSystem, replica: Replica
) -> None:
    """The key backend is down; the same request succeeds later."""
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "down")
    onboarded = await wallet.onboard_alice()
    assert (onboarded.customer_id, onboarded.record) == (CUSTOMER, None)
    assert onboarded.error is system.key.failure
    system.key.failure = None
    again = await wallet.onboard_alice()
    assert again.record is not None
    assert again.record.state is ChallengeState.VERIFIED


async def test_customer_that_exists_without_stored_id_is_conflict(wallet: WalletBackend, system: FakeSystem) -> None:
    """The card API's error is raised unchanged."""
    system.card_api.failures.append(Conflict(ErrorCode.CUSTOMER_EXISTS, "exists"))
    with pytest.raises(Conflict) as error:
        await wallet.onboard_alice()
    assert error.value.code is ErrorCode.CUSTOMER_EXISTS


async def test_creation_continues_if_caller_times_out(wallet: WalletBackend, system: FakeSystem) -> None:
    """The same request finds the customer later."""
    system.card_api.reads_open.clear()
    with pytest.raises(Unavailable) as error:
        await wallet.onboard_alice(within=timedelta(milliseconds=5))
    assert error.value.code is ErrorCode.CHALLENGE_IN_PROGRESS
    system.card_api.reads_open.set()
    assert (await wallet.onboard_alice()).customer_id == CUSTOMER
    assert len(system.card_api.created) == 1


async def test_drain_cancels_creation_and_caller_gets_unavailable(wallet: WalletBackend, system: FakeSystem) -> None:
    """The caller can repeat the request."""
    system.card_api.reads_open.clear()
    caller = asyncio.create_task(wallet.onboard_alice())
    await system.wait_until(lambda: bool(system.card_api.created))
    assert await wallet.onboard.drain(ZERO_TIMEOUT) == 1
    with pytest.raises(Unavailable):
        await caller


async def test_closed_gate_rejects_onboarding(wallet: WalletBackend, system: FakeSystem, replica: Replica) -> None:
    """Nothing is created."""
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "stopping")
    with pytest.raises(Unavailable):
        await wallet.onboard_alice()
    assert system.card_api.created == []
