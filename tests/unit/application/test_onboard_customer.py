"""Tests: a customer is created once, whatever call or reply is lost, and every later response contains its id."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.onboard_customer import OnboardCustomer, OnboardingResult
from signer.application.ports import DeliveryResult, DeliveryVerdict, EventName
from signer.domain.customer import CustomerIntent
from signer.domain.errors import (
    BadUpstream,
    Conflict,
    ErrorCode,
    NotFound,
    RefusedByPolicy,
    SignerError,
    Unavailable,
    UpstreamTimeout,
)
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from tests.support.fakes.customer_intents import FakeCustomerIntents
from tests.support.fakes.keys import FakeKeyRing
from tests.unit.application.fake_system import CUSTOMER, LONG_TIMEOUT, POLICY, ZERO_TIMEOUT, FakeSystem, Replica

ALICE = "alice"


class WalletBackend:
    """A wallet backend that onboards Alice."""

    def __init__(self, system: FakeSystem, replica: Replica) -> None:
        self.intents = FakeCustomerIntents()
        self.system = system
        system.card_api.customer_ids[ALICE] = CUSTOMER
        system.card_api.first_challenge = system.make_challenge()
        self.onboard = OnboardCustomer(
            policy=POLICY,
            intents=self.intents,
            card_api=system.card_api,
            keys=FakeKeyRing([system.key]),
            sign=replica.sign,
            audit=system.audit,
            admission=replica.admission,
            card_api_timeout=timedelta(seconds=8),
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


async def test_challenge_of_the_creation_is_signed_without_fetching_one(
    wallet: WalletBackend, system: FakeSystem
) -> None:
    """One call creates the customer and one delivers."""
    onboarded = await wallet.onboard_alice()
    assert onboarded.record is not None
    assert onboarded.record.id == system.id_of(system.challenges[0])
    assert (system.card_api.read_count, len(system.card_api.submitted)) == (0, 1)


@pytest.mark.parametrize("first", ["absent", "malformed", "expired"])
async def test_unusable_challenge_of_the_creation_is_exchanged_for_the_current_one(
    wallet: WalletBackend, system: FakeSystem, first: str
) -> None:
    """It is judged like any other challenge; the current one is fetched once."""
    expired = system.make_challenge(nonce="old0old0", issued_at="2026-11-22T11:00:00Z")
    system.card_api.first_challenge = {"absent": None, "malformed": "aGVsbG8=", "expired": expired}[first]
    current = system.issue_challenge(nonce="new0new0")
    onboarded = await wallet.onboard_alice()
    assert onboarded.record is not None
    assert (onboarded.record.id, onboarded.record.state) == (system.id_of(current), ChallengeState.VERIFIED)
    assert (system.card_api.read_count, system.card_api.new_customers_read) == (1, 1)


async def test_current_challenge_is_fetched_if_customer_is_known(
    wallet: WalletBackend, system: FakeSystem, replica: Replica
) -> None:
    """The challenge of the creation may have been replaced since."""
    replica.store.lose_call("claim")
    assert (await wallet.onboard_alice()).record is None
    current = system.issue_challenge(nonce="new0new0")
    onboarded = await wallet.onboard_alice()
    assert onboarded.record is not None
    assert onboarded.record.id == system.id_of(current)
    assert (system.card_api.read_count, system.card_api.new_customers_read) == (1, 1)


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


async def test_owner_on_a_chain_outside_the_policy_creates_no_customer(
    wallet: WalletBackend, system: FakeSystem
) -> None:
    """Its key is loaded, for the address is the same on every chain."""
    elsewhere = AccountId.parse(f"eip155:300:{system.key.address}")
    with pytest.raises(RefusedByPolicy) as error:
        await wallet.onboard(CustomerIntent(elsewhere, ALICE, elsewhere), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.field) == (ErrorCode.CHAIN_NOT_ALLOWED, "ownerId")
    assert error.value.detail == "ownerId is on chain eip155:300, which is not in policy.chains (eip155:324)."
    assert (wallet.intents.known, system.card_api.created) == ({}, [])


async def test_key_that_cannot_sign_now_creates_no_customer(wallet: WalletBackend, system: FakeSystem) -> None:
    """The same request creates the customer once the key backend works again."""
    system.key.failure = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "down")
    with pytest.raises(Unavailable) as error:
        await wallet.onboard_alice()
    assert error.value is system.key.failure
    assert system.card_api.created == []
    system.key.failure = None
    assert (await wallet.onboard_alice()).customer_id == CUSTOMER


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
    """The store fails before the challenge is claimed; the same request succeeds later."""
    replica.store.lose_call("claim")
    onboarded = await wallet.onboard_alice()
    assert (onboarded.customer_id, onboarded.record) == (CUSTOMER, None)
    assert onboarded.error is not None
    assert onboarded.error.code is ErrorCode.STORE_UNAVAILABLE
    again = await wallet.onboard_alice()
    assert again.record is not None
    assert again.record.state is ChallengeState.VERIFIED


async def test_customer_whose_challenge_ended_without_proof_is_a_conflict_with_its_record(
    wallet: WalletBackend, system: FakeSystem
) -> None:
    """The same request again signs the customer's next challenge."""
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422))
    onboarded = await wallet.onboard_alice()
    assert onboarded.customer_id == CUSTOMER
    assert onboarded.record is not None
    assert onboarded.record.state is ChallengeState.REJECTED
    assert isinstance(onboarded.error, Conflict)
    assert onboarded.error.code is ErrorCode.CUSTOMER_NOT_PROVEN
    current = system.issue_challenge(nonce="new0new0")
    again = await wallet.onboard_alice()
    assert again.error is None
    assert again.record is not None
    assert (again.record.id, again.record.state) == (system.id_of(current), ChallengeState.VERIFIED)


async def test_customer_whose_signature_is_being_delivered_is_no_error(system: FakeSystem) -> None:
    """The card API is busy; recovery delivers later."""
    wallet = WalletBackend(system, system.add_replica(work_timeout=ZERO_TIMEOUT))
    system.card_api.verdicts.append(DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503))
    onboarded = await wallet.onboard_alice()
    assert onboarded.error is None
    assert onboarded.record is not None
    assert onboarded.record.state is ChallengeState.SIGNED


async def test_customer_that_exists_is_found_and_its_id_stored(wallet: WalletBackend, system: FakeSystem) -> None:
    """The creation committed, and its response was lost: the same request goes on, without a second look-up."""
    system.card_api.already_exists = 1
    onboarded = await wallet.onboard_alice()
    assert (onboarded.customer_id, onboarded.error) == (CUSTOMER, None)
    assert onboarded.record is not None
    assert onboarded.record.state is ChallengeState.VERIFIED
    assert list(wallet.intents.known.values()) == [CUSTOMER]
    assert await wallet.onboard_alice() == onboarded
    assert (system.card_api.lookups, len(system.card_api.created)) == ([ALICE], 1)
    [found] = system.audit.events_named(EventName.CUSTOMER_FOUND)
    assert (found.fields["customer_id"], found.fields["owner"]) == (CUSTOMER, str(system.owner))
    assert not system.audit.events_named(EventName.CUSTOMER_CREATED)


@pytest.mark.parametrize(
    ("failure", "retry_after"),
    [
        (NotFound(ErrorCode.CUSTOMER_UNKNOWN, "No match."), 5.0),
        (BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "Several."), 5.0),
        (UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "Late."), 1.0),
        (Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "Down.", retry_after=7), 7),
    ],
    ids=lambda value: value.code if isinstance(value, SignerError) else None,
)
async def test_customer_that_exists_and_is_not_found_is_unavailable_with_a_warning(
    wallet: WalletBackend, system: FakeSystem, failure: SignerError, retry_after: float
) -> None:
    """No id is guessed or stored; the same request finds the customer later."""
    system.card_api.already_exists = 2
    system.card_api.failures.append(failure)
    with pytest.raises(Unavailable) as error:
        await wallet.onboard_alice()
    assert (error.value.code, error.value.retry_after) == (ErrorCode.CUSTOMER_LOOKUP_FAILED, retry_after)
    assert failure.detail in error.value.detail
    assert list(wallet.intents.known.values()) == [None]
    [warning] = system.audit.events_named(EventName.CUSTOMER_LOOKUP_FAILED)
    assert (warning.fields["customer_id"], warning.fields["owner"], warning.fields["code"]) == (
        None,
        str(system.owner),
        failure.code,
    )
    assert (await wallet.onboard_alice()).customer_id == CUSTOMER


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
